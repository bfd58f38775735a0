"""Expressions that several panels share, of all selected workers together."""

from deploy.grafana.classic import Query


def rate(series: str, *by: str) -> str:
    """Change a second, of all workers together."""
    return f"sum{_by(by)}(rate(downtick_{series}[$__rate_interval]))"


def mean(series: str, *by: str) -> str:
    """Sum by count of a summary or histogram: the mean of what came within the interval."""
    return f"{rate(f'{series}_sum', *by)} / {rate(f'{series}_count', *by)}"


def quantile(q: float, histogram: str, *by: str, only: str = "") -> str:
    """Of what came within the interval; `only`: a matcher in braces."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket{only}', 'le', *by)})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""


IN_AND_OUT = (
    Query(rate("events_consumed_total"), "in: updates handled"),
    Query(rate("predictions_published_total"), "out: predictions"),
)
ERROR_RATIO = f"{rate('forecast_abs_error_sum')} / {rate('naive_abs_error_sum')}"
COVERAGE = rate('interval_hits_total{hit="true"}') + " / " + rate("interval_hits_total")
QUANTILES = tuple(Query(quantile(q, "event_to_prediction_seconds"), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))
FALLING = "sum(downtick_falling_stocks) / sum(downtick_stocks_tracked)"
LAG = "sum(downtick_consumer_lag_records)"
