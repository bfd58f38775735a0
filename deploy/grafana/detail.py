"""The dashboard *detail*: a row for each part of the service, to find the one that ails."""

from deploy.grafana.classic import Panel, Query, Row
from deploy.grafana.queries import COVERAGE, ERROR_RATIO, LAG, mean, quantile, rate

THROUGHPUT = Row(
    "Throughput",
    (
        Panel(
            "Updates handled by worker",
            "One far below the others has fewer partitions, or its machine is slower.",
            "cps",
            (Query(rate("events_consumed_total", "instance"), "{{instance}}"),),
            stack=True,
        ),
        Panel(
            "What became of the updates",
            "Predictions, dead letters and skipped ones: together, always, the updates handled.",
            "cps",
            (
                Query(rate("predictions_published_total"), "predictions"),
                Query(rate("dead_letters_total"), "dead letters"),
                Query(rate("events_skipped_total", "reason"), "skipped: {{reason}}"),
            ),
            stack=True,
        ),
        Panel(
            "Work that waits",
            "What the updates waiting take at the present pace. Above 300 s and growing: DowntickFallingBehind.",
            "s",
            (Query(f"{LAG} / {rate('events_consumed_total')}", "backlog"),),
            steps=((300, "red"),),
        ),
        Panel(
            "Age of the newest update",
            "Since the event time of the newest update handled. Rising with nothing waiting: the producers are silent.",
            "s",
            (Query("time() - max by (instance) (downtick_last_event_timestamp_seconds > 0)", "{{instance}}"),),
            low=None,
        ),
        Panel(
            "Flips",
            "Falling flags that changed, a second. Many at once: a market move or a bad feed.",
            "cps",
            (Query(rate("flips_total", "to"), "to {{to}}"),),
        ),
        Panel(
            "Stocks",
            "In memory, and those that fall. Near history.max_stocks in one partition: raise it, or add partitions.",
            "short",
            (
                Query("sum(downtick_stocks_tracked)", "tracked"),
                Query("sum(downtick_falling_stocks)", "falling"),
            ),
        ),
    ),
)
LATENCY = Row(
    "Latency by stage",
    (
        Panel(
            "Event to prediction by worker, p99",
            "One worker above the others: its machine, or its partitions' leader.",
            "s",
            (Query(quantile(0.99, "event_to_prediction_seconds", "instance"), "{{instance}}"),),
            steps=((5, "red"),),
        ),
        Panel(
            "Time of a batch by stage, p99",
            "publish: Kafka; apply: Redis; predict: the network; decode, history: this process. The highest is it.",
            "s",
            (Query(quantile(0.99, "stage_seconds", "stage"), "{{stage}}"),),
        ),
        Panel(
            "How busy the engine is",
            "Seconds of work a second, by stage, over all workers. Near the number of workers: add one.",
            "percentunit",
            (Query(rate("stage_seconds_sum", "stage"), "{{stage}}"),),
            stack=True,
        ),
    ),
)
KAFKA = Row(
    "Kafka",
    (
        Panel(
            "Updates waiting by partition",
            "One partition alone: a hot stock, or a partition that is paused or not seated.",
            "short",
            (Query("max by (partition) (downtick_consumer_lag_records)", "{{partition}}"),),
        ),
        Panel(
            "Partitions by worker",
            "How the group shares the topic. A worker with none is spare.",
            "short",
            (Query("sum by (instance) (downtick_assigned_partitions)", "{{instance}}"),),
            stack=True,
        ),
        Panel(
            "Rebalances",
            "Changes of the assignment. Steady without rollouts: workers that die, or poll too seldom.",
            "short",
            (Query("sum by (event) (increase(downtick_rebalances_total[$__rate_interval]))", "{{event}}"),),
        ),
        Panel(
            "Transactions",
            "A second, by outcome. Aborted or unknown rising: brokers or rebalances; nothing is lost by them.",
            "cps",
            (Query(rate("transactions_total", "outcome"), "{{outcome}}"),),
        ),
        Panel(
            "Poll interval used",
            "Longest share of max.poll.interval.ms between polls. At 1 the group throws it out: smaller batches.",
            "percentunit",
            (Query("max by (instance) (downtick_poll_interval_used_ratio)", "{{instance}}"),),
            high=1,
            steps=((0.8, "red"),),
        ),
        Panel(
            "Paused partitions",
            "1: too many refused updates in a row (DowntickPartitionPaused). Mend the producer, then resume.",
            "short",
            (Query("max by (partition) (downtick_breaker_open)", "{{partition}}"),),
            steps=((1, "red"),),
            high=1,
        ),
    ),
)
INFERENCE = Row(
    "Inference",
    (
        Panel(
            "Updates in a batch",
            "Mean and p99. At batch.max_events the worker is behind; small ones are no fault.",
            "short",
            (
                Query(mean("batch_events"), "mean"),
                Query(quantile(0.99, "batch_events"), "p99"),
            ),
        ),
        Panel(
            "Network's time for an update",
            "Time of the stage predict by updates. Falls with bigger batches; grows when the cores are shared.",
            "s",
            (
                Query(
                    rate('stage_seconds_sum{stage="predict"}', "instance")
                    + " / "
                    + rate("batch_events_sum", "instance"),
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Model version",
            "Workers by the bundle version that predicts. Two for long: one worker cannot take the new one over.",
            "short",
            (Query("sum by (version) (downtick_model_info)", "{{version}}"),),
            stack=True,
        ),
        Panel(
            "Model changes",
            "Versions taken over, or refused. Refused: the log names the fault; see `downtick models list`.",
            "short",
            (Query("sum by (outcome) (increase(downtick_model_swaps_total[$__rate_interval]))", "{{outcome}}"),),
        ),
    ),
)
QUALITY = Row(
    "Forecast quality",
    (
        Panel(
            "Error of forecast and last value",
            "Mean absolute error in the window's own scale. The forecast above the naive one for long: retrain.",
            "short",
            (Query(mean("forecast_abs_error"), "forecast"), Query(mean("naive_abs_error"), "naive: the last value")),
        ),
        Panel(
            "Error in naive's",
            "Below 1 the forecast knows something; above 1.05 for an hour: DowntickForecastWorseThanNaive.",
            "short",
            (Query(ERROR_RATIO, "forecast / naive"),),
            low=None,
            steps=((1.05, "red"),),
        ),
        Panel(
            "Values inside the interval",
            "90 % should be, by the shipped bundle. Below: the market moves more than in training; above: less.",
            "percentunit",
            (Query(COVERAGE, "inside"),),
            low=None,
            high=1,
            base="red",
            steps=((0.8, "green"), (0.97, "red")),
        ),
        Panel(
            "Brier score of the flag",
            "Mean (probability − truth)², once the label's rule can tell. Rising: retrain. Always ½ would give .25.",
            "short",
            (Query(mean("falling_squared_error"), "Brier score"),),
        ),
        Panel(
            "Flips in 1,000 predictions",
            "How restless the flags are. A model change may move it; a steady rise is a feed or a market that changed.",
            "short",
            (Query(f"1000 * {rate('flips_total')} / {rate('predictions_published_total')}", "flips"),),
        ),
    ),
)
SHADOW = Row(
    "Candidate in shadow",
    (
        Panel(
            "Candidate",
            "Workers by the version that runs in shadow: scored on the same updates, publishing nothing. Empty: none.",
            "short",
            (Query("sum by (version) (downtick_shadow_info)", "{{version}}"),),
        ),
        Panel(
            "Candidates",
            "Taken into shadow, refused before, or failed there. Refused or failed: the log names the fault.",
            "short",
            (Query("sum by (outcome) (increase(downtick_shadow_candidates_total[$__rate_interval]))", "{{outcome}}"),),
        ),
        Panel(
            "Forecast error, candidate and active",
            "In naive's. The candidate below the active one, for long: promote it.",
            "short",
            (
                Query(
                    f"{rate('shadow_forecast_abs_error_sum', 'model')}"
                    f" / ignoring (model) group_left {rate('shadow_naive_abs_error_sum')}",
                    "{{model}}",
                ),
            ),
            low=None,
        ),
        Panel(
            "Inside the interval, candidate and active",
            "Values inside each one's interval. Compare the widths too: a wide one is easily right.",
            "percentunit",
            (
                Query(
                    rate('shadow_interval_hits_total{hit="true"}', "model")
                    + " / "
                    + rate("shadow_interval_hits_total", "model"),
                    "{{model}}",
                ),
            ),
            low=None,
            high=1,
        ),
        Panel(
            "Width of the interval, candidate and active",
            "Mean, in the window's own scale. At equal shares inside the narrower one knows more.",
            "short",
            (Query(mean("shadow_interval_width", "model"), "{{model}}"),),
        ),
        Panel(
            "Brier score, candidate and active",
            "Each by its own rule. The candidate below, for long: promote it.",
            "short",
            (Query(mean("shadow_falling_squared_error", "model"), "{{model}}"),),
        ),
    ),
)
REDIS = Row(
    "Redis and restore",
    (
        Panel(
            "Redis calls that failed",
            "A second, by what was asked. The service waits and retries; look at Redis.",
            "cps",
            (Query(rate("redis_errors_total", "operation"), "{{operation}}"),),
        ),
        Panel(
            "Time of a write",
            "Stage apply: one scripted call for all partitions of a batch. Grows: Redis is busy or far away.",
            "s",
            (
                Query(quantile(0.5, "stage_seconds", only='{stage="apply"}'), "p50"),
                Query(quantile(0.99, "stage_seconds", only='{stage="apply"}'), "p99"),
            ),
        ),
        Panel(
            "Records to restore",
            "To be folded before a worker's partitions give predictions again. Not falling: DowntickRestoreRunsLong.",
            "short",
            (Query("sum by (instance) (downtick_restore_remaining_records)", "{{instance}}"),),
        ),
        Panel(
            "Rings repaired, records missing",
            "Repaired, within an interval: somebody else writes our keys. Missing, since the workers that run were"
            " started: retention took updates before a restore.",
            "short",
            (
                Query("sum(increase(downtick_rings_repaired_total[$__rate_interval]))", "rings repaired"),
                # Itself: counted at seating, before the first scrape of a worker; no increase sees that.
                Query("sum(downtick_history_gap_records_total)", "records missing"),
            ),
        ),
    ),
)
PROCESS = Row(
    "Process",
    (
        Panel(
            "CPU",
            "Cores in use. The engine is one thread, the network takes a second one.",
            "short",
            (Query("sum by (instance) (rate(process_cpu_seconds_total[$__rate_interval]))", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Memory",
            "Resident. Grows with stocks, not with time; docs/operations.md has the formula.",
            "bytes",
            (Query("sum by (instance) (process_resident_memory_bytes)", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Open files",
            "Of those allowed. Rising: connections that nobody closes.",
            "percentunit",
            (Query("max by (instance) (process_open_fds / process_max_fds)", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Uptime",
            "Since the process began. A saw-tooth: it is killed and started again; look at its exit code.",
            "s",
            (Query("time() - max by (instance) (process_start_time_seconds)", "{{instance}}"),),
            width=6,
        ),
    ),
)


ROWS = (THROUGHPUT, LATENCY, KAFKA, INFERENCE, QUALITY, SHADOW, REDIS, PROCESS)
