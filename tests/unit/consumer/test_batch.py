"""Batches: what goes out and what is counted, however the log is cut."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.batch import Stager, count, dead_letters_of, predictions_of
from consumer.events import EventDecoder
from consumer.metrics import Metrics
from consumer.partition import Partition
from consumer.stage import Staged
from tests.unit.consumer.doubles import BAD, NOON_MS, NOT_FINITE, Message, SlopeModel, event, seated


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"downtick_{name}", labels)
    assert found is not None, name
    return found


@dataclass
class Run:
    """A partition that takes batches as the engine would, and keeps what came out."""

    limit: int = 1_000
    max_stocks: int = 1_000
    partition: Partition = field(default_factory=seated)
    outputs: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)
    letters: list[tuple[str, int]] = field(default_factory=list)  # reason and offset

    def __post_init__(self) -> None:
        self.metrics, self.model = Metrics(), SlopeModel()
        decoder = EventDecoder((), 200, 86_400)
        self.stager = Stager(decoder, self.model, self.metrics, self.max_stocks, self.limit)  # type: ignore[arg-type]  # a model of our own

    def take(self, *records: Message) -> list[Staged]:
        """One batch; nothing of it once the breaker is open."""
        records = tuple(record for record in records if record.offset() >= self.partition.next_offset)
        if self.partition.breaker_open or not records:
            return []
        parts = self.stager.stage([(self.partition, records)])
        for partition, staged in parts:
            self.outputs += [(key, value) for key, value, _ in predictions_of(partition, staged)]
            for _, _, headers in dead_letters_of(partition, "prices", staged, NOON_MS, "0.1.0"):
                told = dict(headers or [])
                self.letters.append((str(told["downtick.reason"], "ascii"), int(told["downtick.source.offset"] or b"")))
            partition.history.fold(staged.admitted.updates, staged.entries)
            partition.next_offset, partition.rejected = staged.next_offset, staged.rejected
            partition.breaker_open = staged.tripped
            count(self.metrics, [staged], NOON_MS + 250)
        return [staged for _, staged in parts]

    def offsets(self) -> list[int]:
        """Of the predictions, in the order in which they went out."""
        return [json.loads(value or b"")["source"]["offset"] for _, value in self.outputs]

    def counted(self) -> dict[str, float]:
        """The counters that tell what became of the records."""
        told: dict[str, float] = {}
        for family in self.metrics.registry.collect():
            for one in family.samples:
                counts = one.name.endswith(("_total", "_error_sum", "_error_count"))
                if counts and one.name.startswith("downtick_") and one.value:
                    told[" ".join([one.name.removeprefix("downtick_"), *one.labels.values()])] = one.value
        return told


# --- what goes out


def test_predictions_come_in_log_order_with_the_updates_own_key_and_trace() -> None:
    run = Run()
    run.take(
        *[event(stock, value, value, at) for at, (stock, value) in enumerate([("B", 1), ("A", 1), ("A", 2), ("B", 2)])]
    )
    trace = ("traceparent", b"00-1-2-03")
    body = b'{"stock":"B","value":3,"ts":3}'
    records = [Message(b"B", body, 5, NOON_MS, [("x", b"1"), trace]), event("A", 3, 3, 7)]
    [(partition, staged)] = run.stager.stage([(run.partition, records)])
    text = (
        b'{"stock":"%b","ts":"1970-01-01T00:00:00.003Z","value":3.0,"falling":false,"falling_probability":0.1,'
        b'"flipped":false,"forecast":4,"forecast_low":3,"forecast_high":5,"window":3,"model":"v1",'
        b'"source":{"topic":"prices","partition":0,"offset":%d}}'
    )
    assert list(predictions_of(partition, staged)) == [
        (b"B", text % (b"B", 5), [trace]),
        (b"A", text % (b"A", 7), None),
    ]


def test_partitions_are_predicted_in_one_call_and_get_their_own_rows() -> None:
    run = Run()
    one, two, three = seated(1), seated(2), seated(3)
    up, down = (1, 2, 3), (9, 5, 1)
    parts = run.stager.stage(
        [
            (one, [event("A", v, n, n) for n, v in enumerate(up)]),
            (two, [event("A", v, n, n) for n, v in enumerate(down[:2])]),  # still warming up
            (three, [event("A", v, n, n) for n, v in enumerate(down)]),
        ]
    )
    assert run.model.calls == [2]
    assert [partition.number for partition, _ in parts] == [1, 2, 3]
    told = [[json.loads(value or b"") for _, value, _ in predictions_of(*part)] for part in parts]
    assert [[body["falling"] for body in of] for of in told] == [[False], [], [True]]
    assert [body["source"]["partition"] for of in told for body in of] == [1, 3]


def test_dead_letters_come_in_log_order_whatever_found_them() -> None:
    run = Run(max_stocks=1)
    records = [
        event("A", 1, 10, 0),
        event("A", 2, 11, 1),
        event("A", NOT_FINITE, 12, 2),
        event("B", 1, 1, 3),
        event("A", 3, 5, 4),
        Message(b"A", BAD, 5),
        event("A", 4, 13, 6),
        Message(None, BAD, 7),
    ]
    run.take(*records)
    assert run.letters == [
        ("model_not_finite", 2),
        ("stock_limit", 3),
        ("late", 4),
        ("json_invalid", 5),
        ("key_missing", 7),
    ]
    assert run.offsets() == [6]


def test_the_next_offset_follows_the_last_record_whatever_became_of_it() -> None:
    run = Run()
    [staged] = run.take(event("A", 1, 1, 4), Message(b"A", BAD, 9))
    assert staged.next_offset == 10


# --- what was published before


def test_records_before_output_from_are_folded_and_not_told_of_again() -> None:
    records = [event("A", value, value, at) for at, value in enumerate([1, 2, 3, 4, 5])]
    records[1] = Message(b"A", BAD, 1)
    run = Run(partition=seated(output_from=4))
    run.take(*records)
    assert run.offsets() == [4]  # at 3 the stock had three values, too
    assert run.letters == []
    assert run.counted() == {
        "events_consumed_total": 1,
        "predictions_published_total": 1,
        "forecast_abs_error_count": 1,
        "naive_abs_error_count": 1,
        "naive_abs_error_sum": 0.5,
        "interval_hits_total true": 1,
    }


def test_a_restore_moves_no_counter() -> None:
    run = Run(partition=seated(output_from=100))
    run.take(*[event("A", value, value, value) for value in range(5)], Message(b"A", BAD, 5), event("A", 4, 4, 6))
    assert run.counted() == {}
    assert (run.outputs, run.letters) == ([], [])
    assert sample(run.metrics, "event_to_prediction_seconds_count") == 0
    assert sample(run.metrics, "last_event_timestamp_seconds") == 0


# --- what is counted


def test_consumed_is_predictions_and_dead_letters_and_skipped() -> None:
    run = Run(max_stocks=1)
    falls_and_rises = [(9, 1), (5, 2), (1, 3), (9, 4), (9, 4), (8, 3), (NOT_FINITE, 5)]
    records = [event("A", value, ts, at) for at, (value, ts) in enumerate(falls_and_rises)]
    run.take(*records, event("B", 1, 1, 7), Message(b"A", BAD, 8), Message(b"A", b'{"stock":"A"}', 9))
    assert run.counted() == {
        "events_consumed_total": 10,
        "predictions_published_total": 2,  # at 2 and 3
        "events_skipped_total warming_up": 2,
        "events_skipped_total duplicate": 1,
        "dead_letters_total late": 1,
        "dead_letters_total model_not_finite": 1,
        "dead_letters_total stock_limit": 1,
        "dead_letters_total json_invalid": 1,
        "dead_letters_total schema_invalid": 1,
        "flips_total falling": 1,
        "flips_total not_falling": 1,
        # at 1: forecast −3 ± 1, then came 9: |9 + 3| / 2 and |9 − 1| / 2; at 9: 17 ± 1, then 13: 4 / 2 and 4 / 2
        "forecast_abs_error_sum": 8,
        "forecast_abs_error_count": 2,
        "naive_abs_error_sum": 6,
        "naive_abs_error_count": 2,
        "interval_hits_total false": 2,
    }


def test_the_delay_counts_from_the_kafka_timestamp_and_only_predictions_have_one() -> None:
    run = Run()
    body = b'{"stock":"A","value":1,"ts":%d}'
    stamps = [NOON_MS, NOON_MS, NOON_MS - 1_750, -1, NOON_MS + 100]
    run.take(*[Message(b"A", body % at, at, stamp) for at, stamp in enumerate(stamps)])
    # counted at NOON + 250 ms: 2.0 s and 0.15 s; one of the three predictions has no timestamp
    assert sample(run.metrics, "event_to_prediction_seconds_count") == 2
    assert abs(sample(run.metrics, "event_to_prediction_seconds_sum") - 2.15) < 1e-9
    assert sample(run.metrics, "event_to_prediction_seconds_bucket", le="0.25") == 1


def test_a_producers_clock_that_is_ahead_makes_no_negative_delay() -> None:
    run = Run()
    body = b'{"stock":"A","value":1,"ts":%d}'
    run.take(*[Message(b"A", body % at, at, NOON_MS + 60_000) for at in range(3)])
    assert sample(run.metrics, "event_to_prediction_seconds_count") == 1
    assert sample(run.metrics, "event_to_prediction_seconds_sum") == 0


def test_the_newest_event_time_is_shown_and_never_goes_back() -> None:
    run = Run()
    run.take(event("A", 1, 5_500, 0), event("B", 1, 4_000, 1))
    assert sample(run.metrics, "last_event_timestamp_seconds") == 5.5
    run.take(event("B", 1, 4_500, 2))
    assert sample(run.metrics, "last_event_timestamp_seconds") == 5.5
    run.take(event("B", 1, 6_500, 3))
    assert sample(run.metrics, "last_event_timestamp_seconds") == 6.5


def test_each_stage_of_a_batch_is_timed_once() -> None:
    run = Run()
    run.take(event("A", 1, 1, 0))
    run.take(event("A", 2, 2, 1))
    for stage in ("decode", "history", "predict"):
        assert sample(run.metrics, "stage_seconds_count", stage=stage) == 2


# --- the circuit breaker


def test_the_breaker_trips_at_the_record_that_is_one_too_many() -> None:
    run = Run(limit=3)
    bad = [Message(b"A", BAD, at) for at in range(1, 6)]
    [staged] = run.take(event("A", 1, 1, 0), *bad, event("A", 2, 2, 6))
    assert staged.tripped
    assert run.letters == [("json_invalid", 1), ("json_invalid", 2), ("json_invalid", 3)]
    assert (run.partition.next_offset, run.partition.rejected, run.partition.breaker_open) == (4, 3, True)


def test_a_breaker_that_trips_at_once_publishes_nothing() -> None:
    run = Run(limit=3, partition=seated(rejected=3))
    assert run.take(Message(b"A", BAD, 0), event("A", 1, 1, 1)) == []
    assert (run.partition.next_offset, run.partition.breaker_open) == (0, True)
    assert run.counted() == {}


def test_one_partitions_breaker_leaves_the_others_alone() -> None:
    run = Run(limit=1)
    one, two, three = seated(1), seated(2, rejected=1), seated(3)
    good = [event("A", value, value, value) for value in range(4)]
    parts = run.stager.stage(
        [(one, good), (two, [Message(b"A", BAD, 0)]), (three, [good[0], Message(b"A", BAD, 1), Message(b"A", BAD, 2)])]
    )
    assert [(partition.number, staged.next_offset, staged.tripped) for partition, staged in parts] == [
        (1, 4, False),
        (3, 2, True),
    ]
    assert (one.breaker_open, two.breaker_open) == (False, True)
    assert len(list(predictions_of(*parts[0]))) == 2


# --- the cuts do not matter


def records() -> st.SearchStrategy[list[Message]]:
    """A log of few stocks with late, repeated, broken and unlucky events, and gaps between offsets."""
    good = st.builds(
        lambda stock, value, ts: (stock.encode(), json.dumps({"stock": stock, "value": value, "ts": ts}).encode()),
        st.sampled_from("AABC"),
        st.sampled_from([1.0, 2.0, 2.0, 3.0, 5.0, 9.0, -0.0, NOT_FINITE]),
        st.integers(0, 30),
    )
    rising = st.builds(lambda one, at: (one, at), good, st.none())
    broken = st.sampled_from([((b"A", BAD), None), ((None, b"{}"), None), ((b"B", b'{"stock":"A","value":1}'), None)])
    spaced = st.tuples(st.one_of(rising, rising, rising, broken), st.sampled_from([1, 1, 1, 2, 7]))

    def build(drawn: list[tuple[tuple[tuple[bytes | None, bytes], None], int]]) -> list[Message]:
        offsets = np.cumsum([gap for _, gap in drawn]).tolist()
        return [Message(key, value, offset) for (((key, value), _), _), offset in zip(drawn, offsets, strict=True)]

    return st.lists(spaced, max_size=40).map(build)


def cut(log: list[Message], sizes: list[int]) -> Iterator[list[Message]]:
    at = 0
    for size in [*sizes, len(log)]:
        if log[at : at + size]:
            yield log[at : at + size]
        at += size


@settings(deadline=None, max_examples=100, print_blob=True)
@given(
    log=records(),
    sizes=st.lists(st.integers(1, 20), max_size=60),
    limit=st.sampled_from([2, 5, 1_000]),
    max_stocks=st.sampled_from([2, 1_000]),
    output_from=st.sampled_from([0, 0, 20]),
)
def test_one_log_cut_in_any_way_gives_the_same_outputs_histories_and_counts(
    log: list[Message], sizes: list[int], limit: int, max_stocks: int, output_from: int
) -> None:
    whole = Run(limit, max_stocks, seated(output_from=output_from))
    whole.take(*log)
    parts = Run(limit, max_stocks, seated(output_from=output_from))
    for batch in cut(log, sizes):
        parts.take(*batch)
    singly = Run(limit, max_stocks, seated(output_from=output_from))
    for record in log:
        singly.take(record)
    for other in (parts, singly):
        assert other.outputs == whole.outputs
        assert other.letters == whole.letters
        assert other.counted() == whole.counted()
        assert other.partition.breaker_open == whole.partition.breaker_open
        if not whole.partition.breaker_open:
            assert other.partition.next_offset == whole.partition.next_offset
        assert other.partition.rejected == whole.partition.rejected
        assert other.partition.history.stocks == whole.partition.history.stocks
        rows = np.arange(len(whole.partition.history))
        mine, theirs = whole.partition.history.newest(rows), other.partition.history.newest(rows)
        assert mine.tobytes() == theirs.tobytes()


@settings(deadline=None, max_examples=100, print_blob=True)
@given(logs=st.lists(records(), min_size=2, max_size=4), halves=st.integers(0, 20))
def test_partitions_staged_together_give_what_each_gives_alone(logs: list[list[Message]], halves: int) -> None:
    together, alone = Run(), Run()
    ours, theirs = [seated(n) for n in range(len(logs))], [seated(n) for n in range(len(logs))]
    for cuts in ([log[:halves] for log in logs], [log[halves:] for log in logs]):
        taken = [(partition, batch) for partition, batch in zip(ours, cuts, strict=True) if batch]
        parts = together.stager.stage(taken) if taken else []
        for partition, staged in parts:
            partition.history.fold(staged.admitted.updates, staged.entries)
            twin = theirs[partition.number]
            [(_, single)] = alone.stager.stage([(twin, cuts[partition.number])])
            twin.history.fold(single.admitted.updates, single.entries)
            count(alone.metrics, [single], NOON_MS)
            assert staged.entries.tobytes() == single.entries.tobytes()
            assert staged.rejections == single.rejections
            for column in ("position", "error", "naive", "hit"):
                assert getattr(staged.scores, column).tolist() == getattr(single.scores, column).tolist()
        if parts:
            count(together.metrics, [staged for _, staged in parts], NOON_MS)
    assert together.counted() == alone.counted()
