"""Metrics: our own collectors against prometheus_client's, and the text that Prometheus reads."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, Summary, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer.metrics import REASONS, SECONDS, STAGES, BatchHistogram, Metrics, RollingMax, Total

EDGES = (0.1, 1.0, 2.5)


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample by name and labels, as Prometheus would read it."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


@settings(deadline=None)  # another process may have the core
@given(st.lists(st.lists(st.floats(-10, 10) | st.sampled_from(EDGES), max_size=5), max_size=5))
def test_a_batch_histogram_shows_what_prometheus_clients_own_would(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one = BatchHistogram("delay_seconds", "Delay.", EDGES, ours)
    other = Histogram("delay_seconds", "Delay.", buckets=EDGES, registry=theirs)
    for batch in batches:
        one.observe(batch)
        for value in batch:
            other.observe(value)
    mine, wanted = shown(ours), shown(theirs)
    wanted = {name: value for name, value in wanted.items() if "_created" not in name}
    assert mine.keys() == wanted.keys()
    for name, value in wanted.items():
        assert mine[name] == pytest.approx(value, abs=1e-9)


def test_a_batch_histogram_by_stage_shows_what_prometheus_clients_own_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    one = BatchHistogram("work_seconds", "Work.", EDGES, ours, ("decode", "apply"))
    other = Histogram("work_seconds", "Work.", ["stage"], buckets=EDGES, registry=theirs)
    for stage in ("decode", "apply"):
        other.labels(stage)
    one.observe(0.5, "decode")
    other.labels("decode").observe(0.5)
    wanted = {name: value for name, value in shown(theirs).items() if "_created" not in name}
    assert shown(ours) == wanted


def test_one_value_and_an_array_are_observed_alike() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("x", "X.", EDGES, registry)
    histogram.observe(3)
    histogram.observe(np.array([0.5, 0.1], np.float32))
    histogram.observe(np.array([]))
    assert [shown(registry)[f"x_bucket[('le', '{edge}')]"] for edge in ("0.1", "1.0", "2.5", "+Inf")] == [0, 2, 2, 3]


def test_a_total_shows_what_prometheus_clients_summary_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    total, summary = Total("error", "Error.", ours), Summary("error", "Error.", registry=theirs)
    total.add(4.0, 2)
    total.add(0.5, 1)
    for value in (1.5, 2.5, 0.5):
        summary.observe(value)
    assert shown(ours) == {name: value for name, value in shown(theirs).items() if "_created" not in name}


def test_a_total_by_a_label_shows_what_prometheus_clients_summary_would_and_can_begin_anew() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    total = Total("error", "Error.", ours, "model", ("candidate", "active"))
    summary = Summary("error", "Error.", ["model"], registry=theirs)
    for model in ("candidate", "active"):
        summary.labels(model)
    total.add(3.0, 1, "active")
    summary.labels("active").observe(3.0)
    assert shown(ours) == {name: value for name, value in shown(theirs).items() if "_created" not in name}
    total.reset()
    assert set(shown(ours).values()) == {0}
    assert len(shown(ours)) == 4


def test_a_rolling_max_shows_the_peak_of_the_last_minute_at_least() -> None:
    registry = CollectorRegistry()
    ratio = RollingMax("used", "Used.", registry)
    told = []
    for at, value in [(1000, 0.2), (1010, 0.9), (1020, 0.1), (1061, 0.3), (1119, 0.1), (1122, 0.1), (1183, 0.0)]:
        ratio.observe(at, value)
        told.append(shown(registry)["used[]"])
    #      1000  1010  1020  1061  1119  1122  1183
    assert told == [0.2, 0.9, 0.9, 0.9, 0.9, 0.3, 0.1]


def test_a_rolling_max_forgets_everything_after_a_long_silence() -> None:
    registry = CollectorRegistry()
    ratio = RollingMax("used", "Used.", registry)
    ratio.observe(1000, 0.9)
    ratio.observe(1120, 0.1)
    assert shown(registry)["used[]"] == 0.1


# The names that dashboards and alerts rely on, and renaming one breaks them.
CONTRACT = {
    "downtick_events_consumed_total": set(),
    "downtick_predictions_published_total": set(),
    "downtick_dead_letters_total": {"reason"},
    "downtick_events_skipped_total": {"reason"},
    "downtick_flips_total": {"to"},
    "downtick_transactions_total": {"outcome"},
    "downtick_rebalances_total": {"event"},
    "downtick_batch_events": set(),
    "downtick_stage_seconds": {"stage"},
    "downtick_event_to_prediction_seconds": set(),
    "downtick_consumer_lag_records": {"partition"},
    "downtick_last_event_timestamp_seconds": set(),
    "downtick_assigned_partitions": set(),
    "downtick_restore_remaining_records": set(),
    "downtick_history_gap_records_total": set(),
    "downtick_breaker_open": {"partition"},
    "downtick_stocks_tracked": set(),
    "downtick_falling_stocks": set(),
    "downtick_redis_errors_total": {"operation"},
    "downtick_poll_interval_used_ratio": set(),
    "downtick_model_info": {"version"},
    "downtick_forecast_abs_error": set(),
    "downtick_naive_abs_error": set(),
    "downtick_interval_hits_total": {"hit"},
    "downtick_falling_squared_error": set(),
    "downtick_model_swaps_total": {"outcome"},
    "downtick_shadow_info": {"version"},
    "downtick_shadow_candidates_total": {"outcome"},
    "downtick_shadow_forecast_abs_error": {"model"},
    "downtick_shadow_naive_abs_error": set(),
    "downtick_shadow_interval_hits_total": {"model", "hit"},
    "downtick_shadow_interval_width": {"model"},
    "downtick_shadow_falling_squared_error": {"model"},
}


def test_every_metric_of_the_contract_is_there_with_its_labels_and_a_line_of_help() -> None:
    metrics = Metrics()
    metrics.consumer_lag.labels("0").set(1)
    metrics.breaker_open.labels("0").set(1)
    metrics.show_model("v1")
    metrics.shadow.info.labels("v2").set(1)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        assert family.documentation, family.name
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert {name: found.get(name) for name in CONTRACT} == CONTRACT
    assert {name.partition("_")[0] for name in found} <= {"downtick", "process", "python"}


def test_series_of_known_labels_are_there_before_they_move() -> None:
    told = shown(Metrics().registry)
    for reason in REASONS:
        assert told[f"downtick_dead_letters_total[('reason', '{reason}')]"] == 0
    for stage in STAGES:
        assert told[f"downtick_stage_seconds_count[('stage', '{stage}')]"] == 0
    for outcome in ("committed", "aborted", "unknown"):
        assert told[f"downtick_transactions_total[('outcome', '{outcome}')]"] == 0
    assert told["downtick_interval_hits_total[('hit', 'true')]"] == 0
    assert math.isclose(told["downtick_events_consumed_total[]"], 0)


def test_a_partition_that_left_is_forgotten() -> None:
    metrics = Metrics()
    for partition in ("1", "12"):
        metrics.consumer_lag.labels(partition).set(5)
        metrics.breaker_open.labels(partition).set(1)
    metrics.forget_partition(1)
    metrics.forget_partition(7)  # never seen
    told = shown(metrics.registry)
    assert {name for name in told if "'partition'" in name} == {
        "downtick_consumer_lag_records[('partition', '12')]",
        "downtick_breaker_open[('partition', '12')]",
    }


def test_a_microsecond_and_an_hour_fall_into_different_buckets() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))
    metrics = Metrics()
    metrics.event_to_prediction_seconds.observe([0.000001, 3601])
    told = shown(metrics.registry)
    assert told["downtick_event_to_prediction_seconds_bucket[('le', '0.001')]"] == 1
    assert told["downtick_event_to_prediction_seconds_bucket[('le', '3600.0')]"] == 1
    assert told["downtick_event_to_prediction_seconds_bucket[('le', '+Inf')]"] == 2
