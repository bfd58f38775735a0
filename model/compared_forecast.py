"""The forecast and its interval against their baselines, on the same rows, in scales of the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model import classical, evaluation, scores, spread
from model.bootstrap import DayBootstrap, Draws
from model.diebold_mariano import by_day, diebold_mariano
from model.features import SCORE_CAP
from model.held_out import sampled
from model.measured import Forecast, ForecastRow, Interval, LossTest, Number, Row, Sample, known

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from model.compared_flag import Dense
    from model.dataset import Table
    from model.held_out import HeldOut
    from model.manifest import Manifest
    from model.measured import Unit

MOST_FORECASTS = 60_000  # of AutoETS and AutoTheta each: of more, stocks are drawn; half a minute at worst


@dataclass(frozen=True)
class Forecasts:
    """What the bundle says of the rows of `HeldOut.later`, in scales from the last value; all (n,)."""

    change: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Compared:
    """The scored rows with a known next value, and what every comparison of them needs.

    change: (n,) what came, in scales. at: (n,) rows of `held.later`. step: (n,) the row's step in its series.
    """

    def __init__(self, table: Table, held: HeldOut, *, replicates: int, seed: int) -> None:
        change = held.later.change
        self.at = np.flatnonzero(held.scored & np.isfinite(change))
        self.rows = held.later.take(self.at)
        self.change = change[self.at]
        self.series = [series.values[:, 0] for series in table.series]
        starts = np.cumsum([0, *(len(values) for values in self.series)])
        self.step = self.rows.end - starts[self.rows.stock]
        self.last = self.rows.series[self.rows.end, 0]
        self.replicates, self.seed = replicates, seed
        first, second = held.borders
        self.borders = [_border(series.times, second) for series in table.series]
        self.train_ends = [_border(series.times, second if first is None else first) for series in table.series]
        self.trained = second is not None
        self.units: NDArray[np.int64] = np.empty(0, np.int64)
        self.unit: Unit = "day"
        if len(self.at):
            self.units, self.unit = sampled(table, self.rows)

    def __len__(self) -> int:
        return len(self.at)

    def boot(self, used: NDArray[np.bool_]) -> DayBootstrap:
        """The bootstrap of the rows of a mask."""
        return DayBootstrap(self.units[used], replicates=self.replicates, seed=self.seed)

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in their own unit as scales from the last value, SCORE_CAP of them at most."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((values - self.last) / self.rows.scale).clip(-SCORE_CAP, SCORE_CAP)

    def picked(self, per_series: Sequence[NDArray[np.float64] | None], first: Sequence[int]) -> NDArray[np.float64]:
        """What is said at each row's step: of each series an array that begins at step `first`; NaN where there is
        none."""
        found = np.full(len(self), np.nan)
        ends = np.searchsorted(self.rows.stock, np.arange(len(per_series) + 1))  # rows are by stock
        for number, said in enumerate(per_series):
            if said is None:
                continue
            mine = slice(ends[number], ends[number + 1])
            place = self.step[mine] - first[number]
            inside = (place >= 0) & (place < len(said))
            found[mine][inside] = said[place[inside]]
        return found

    def sample(self) -> Sample:
        """All rows."""
        return Sample(rows=len(self), unit=self.unit, units=len(np.unique(self.units)), block=1)


def forecast(
    compared: Compared, said: Forecasts, dense: Dense | None, tell: Callable[[str, int, int], None]
) -> Forecast | None:
    """The bundle's forecast against naive, drift, AutoETS, AutoTheta and the dense network; None without a row."""
    if not len(compared):
        return None
    rows = [("bundle", "this bundle", "", said.change[compared.at])]
    rows.append(("naive", "naive: the last value", "", np.zeros(len(compared))))
    drifts = [classical.drift(values) for values in compared.series]
    said_drift = compared.scaled(compared.picked(drifts, [0] * len(drifts)))
    rows.append(("drift", "drift", "the last value plus the stock's mean change so far", said_drift))
    if compared.trained:
        for kind, title in (("ets", "AutoETS"), ("theta", "AutoTheta")):
            ahead, note = _classical(compared, kind, title, tell)  # type: ignore[arg-type]
            if np.isfinite(ahead).any():
                rows.append((kind, title, note, compared.scaled(ahead)))
    if dense is not None:
        rows.append(("dense", "dense 100-100-1", dense.note, dense.change[compared.at]))
    mase = _mase_scale(compared)
    return Forecast(
        sample=compared.sample(),
        models=tuple(_forecast_row(compared, *row, own=rows[0][3], mase=mase) for row in rows),
        largest=float(np.max(np.abs(compared.change))),
    )


def interval(compared: Compared, held: HeldOut, manifest: Manifest, said: Forecasts) -> Interval | None:
    """The bundle's interval against the spread of past moves; None without a row."""
    if not len(compared):
        return None
    level = manifest.interval.level
    rows = [("bundle", "this bundle", "", said.low[compared.at], said.high[compared.at])]
    if held.validation.any():
        found = evaluation.interval_of(held.later.change[held.validation], level, "moves of the training data")
        ends = np.full(len(compared), found.low), np.full(len(compared), found.high)
        rows.append(("scale", "window scale, no network", "quantiles of the moves in scales, from validation", *ends))
    if compared.trained:
        notes = "of the stock's own moves before the scored rows", "lambda 0.94, quantiles from before the scored rows"
        for name, title, note, method in (
            ("constant", "constant quantiles", notes[0], spread.constant),
            ("ewma", "EWMA volatility", notes[1], spread.ewma),
        ):
            pairs = method(compared.series, compared.borders, level)
            if pairs is not None:
                zero = [0] * len(pairs)
                low = compared.scaled(compared.picked([pair[0] for pair in pairs], zero))
                high = compared.scaled(compared.picked([pair[1] for pair in pairs], zero))
                rows.append((name, title, note, low, high))
    own = rows[0][3], rows[0][4]
    return Interval(
        sample=compared.sample(),
        level=level,
        models=tuple(_interval_row(compared, *row, own=own, level=level) for row in rows),
    )


def _forecast_row(
    compared: Compared,
    name: str,
    title: str,
    note: str,
    change: NDArray[np.float64],
    *,
    own: NDArray[np.float64],
    mase: NDArray[np.float64],
) -> ForecastRow:
    used = np.isfinite(change)
    boot, truth = compared.boot(used), compared.change[used]
    errors = {"own": np.abs(truth - own[used]), "this": np.abs(truth - change[used]), "naive": np.abs(truth)}
    mae = {who: boot.mean(error) for who, error in errors.items()}
    rmse = {who: boot.mean(error**2).root() for who, error in errors.items()}
    found = {
        "mae": mae["this"],
        "rmse": rmse["this"],
        "mae_ratio": mae["this"].over(mae["naive"]),
        "rmse_ratio": rmse["this"].over(rmse["naive"]),
    }
    own_found = {"mae": mae["own"], "rmse": rmse["own"]}
    scaled = np.isfinite(mase[used])
    if scaled.any():
        part = compared.boot(used & np.isfinite(mase))
        factor = (compared.rows.scale / mase)[used & np.isfinite(mase)]
        found["mase"] = part.mean(errors["this"][scaled] * factor)
        own_found["mase"] = part.mean(errors["own"][scaled] * factor)
    units = compared.units[used]
    tested = name != "bundle" and compared.unit != "stock"  # the test is one of a series in time; stocks are none
    return ForecastRow(
        name=name,
        title=title,
        note=note,
        rows=int(used.sum()),
        scores={metric: Number.of(draws) for metric, draws in found.items()},
        against=_against(name, own_found, found),
        absolute=_tested(errors["own"] - errors["this"], units) if tested else None,
        squared=_tested(errors["own"] ** 2 - errors["this"] ** 2, units) if tested else None,
    )


def _interval_row(
    compared: Compared,
    name: str,
    title: str,
    note: str,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    own: tuple[NDArray[np.float64], NDArray[np.float64]],
    level: float,
) -> Row:
    used = np.isfinite(low) & np.isfinite(high)
    boot, truth = compared.boot(used), compared.change[used]
    found = _ends(boot, truth, low[used], high[used], level)
    return Row(
        name=name,
        title=title,
        note=note,
        rows=int(used.sum()),
        scores={metric: Number.of(draws) for metric, draws in found.items()},
        against=_against(name, _ends(boot, truth, own[0][used], own[1][used], level), found),
    )


def _against(name: str, own: dict[str, Draws], found: dict[str, Draws]) -> dict[str, Number]:
    """The bundle's scores on a row's own rows less that row's; none for the bundle itself."""
    if name == "bundle":
        return {}
    return {metric: Number.of(draws.minus(found[metric])) for metric, draws in own.items()}


def _ends(
    boot: DayBootstrap, truth: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], level: float
) -> dict[str, Draws]:
    lower = scores.pinball_losses(truth, low, (1 - level) / 2)
    upper = scores.pinball_losses(truth, high, (1 + level) / 2)
    return {
        "coverage": boot.mean(((truth >= low) & (truth <= high)).astype(np.float64)),
        "width": boot.mean(high - low),
        "pinball": boot.mean((lower + upper) / 2),
        "pinball_low": boot.mean(lower),
        "pinball_high": boot.mean(upper),
    }


def _classical(
    compared: Compared, kind: classical.Kind, title: str, tell: Callable[[str, int, int], None]
) -> tuple[NDArray[np.float64], str]:
    """One-step-ahead forecasts of AutoETS or AutoTheta for the rows, NaN where there are none, and what was done."""
    stocks = np.unique(compared.rows.stock)
    chosen = _affordable(compared, stocks)
    found: list[NDArray[np.float64] | None] = [None] * len(compared.series)
    for done, number in enumerate(chosen):
        tell(title, done, len(chosen))
        found[number] = classical.ahead(compared.series[number], compared.borders[number], kind)
    tell(title, len(chosen), len(chosen))
    fitted = sum(one is not None for one in found)
    note = (
        f"fitted once, to at most {classical.LONGEST:,} values before the scored rows, then moved forward at most "
        f"{classical.MOST_STEPS:,} steps; {fitted} of {len(stocks)} stocks"
    )
    return compared.picked(found, compared.borders), note


def _affordable(compared: Compared, stocks: NDArray[np.int64]) -> list[int]:
    """All stocks, or as many drawn ones as MOST_FORECASTS allows."""
    steps = [min(classical.MOST_STEPS, len(compared.series[n]) - compared.borders[n]) for n in stocks]
    if sum(steps) <= MOST_FORECASTS:
        return [int(number) for number in stocks]
    order = np.random.default_rng(compared.seed).permutation(len(stocks))
    affordable = np.cumsum(np.array(steps)[order]) <= MOST_FORECASTS
    return sorted(int(number) for number in stocks[order[affordable]])


def _mase_scale(compared: Compared) -> NDArray[np.float64]:
    """(n,) mean absolute step of each row's stock in the training part, in the value's unit; NaN without one."""
    if not compared.trained:
        return np.full(len(compared), np.nan)
    steps = [np.abs(np.diff(v[:end])) for v, end in zip(compared.series, compared.train_ends, strict=True)]
    means = np.array([step.mean() if len(step) else np.nan for step in steps])
    return np.where(means > 0, means, np.nan)[compared.rows.stock]


def _tested(difference: NDArray[np.float64], units: NDArray[np.int64]) -> LossTest:
    found = diebold_mariano(by_day(difference, units))
    return LossTest(statistic=known(found.statistic), p_value=known(found.p_value), n=found.n)


def _border(times: NDArray[np.int64], border: int | None) -> int:
    """The first step at or behind a time; 0 where there is no border, so that nothing is known to lie before it."""
    return 0 if border is None else int(np.searchsorted(times, border))
