"""Bad input at the decoder: whatever is in a record, it becomes the event or the dead letter that the contract says."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.events import EventDecoder, Rejection
from tests.support.garbage import NOW_MS, nested, records
from tests.support.readers import Record
from tests.support.reference_json import Refused, read_event

BATCH, BATCHES = 25, 800  # 20,000 records


class _Message:
    """As much of a confluent_kafka.Message as the decoder reads."""

    def __init__(self, record: Record, offset: int) -> None:
        self._record, self._offset = record, offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.timestamp

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._record.headers or None


def _decoded(batch: list[Record], fields: tuple[str, ...], max_bytes: int) -> list[object]:
    """For each record: (stock, ts, values) or the reason why not; asserts that each comes back once."""
    events = EventDecoder(fields, max_bytes, 86_400).decode([_Message(r, 100 + at) for at, r in enumerate(batch)])
    found: dict[int, object] = {rejection.position: rejection for rejection in events.rejections}
    for row, at in enumerate(events.position.tolist()):
        assert at not in found
        assert events.offset[row] == 100 + at
        assert events.timestamp[row] == batch[at].timestamp
        found[at] = (events.stocks[row], int(events.ts[row]), tuple(events.values[row].tolist()))
    assert sorted(found) == list(range(len(batch)))
    return [found[at] for at in range(len(batch))]


def _reference(record: Record, fields: tuple[str, ...], max_bytes: int) -> object:
    try:
        event = read_event(record, fields, max_bytes)
    except Refused as refused:
        return refused.reason
    return event.stock, event.ts, event.values


def _same(batch: list[Record], fields: tuple[str, ...], max_bytes: int = 65_536) -> None:
    for record, found in zip(batch, _decoded(batch, fields, max_bytes), strict=True):
        wanted = _reference(record, fields, max_bytes)
        told = found.reason if isinstance(found, Rejection) else found
        assert told == wanted, f"{record.value!r:.300} key {record.key!r:.80} at {record.timestamp}: {found}"
        if isinstance(found, Rejection):
            assert found.message


count = 0


@settings(
    max_examples=BATCHES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(records(), min_size=BATCH, max_size=BATCH), st.sampled_from([(), ("volume",), ("volume", "bid")]))
def _any_batch(batch: list[Record], fields: tuple[str, ...]) -> None:
    global count  # noqa: PLW0603 — how many records were thrown is part of the claim
    count += len(batch)
    _same(batch, fields)


def test_twenty_thousand_generated_records_are_decoded_as_the_contract_says() -> None:
    _any_batch()
    assert count >= 20_000


@settings(max_examples=20, derandomize=True, database=None, deadline=None)
@given(nested(100_000))
def test_nesting_100_000_deep_is_refused_without_harm(value: bytes) -> None:
    record = Record("prices", 0, 0, b"AAPL", value, [], NOW_MS)
    assert _reference(record, (), 10_000_000) == "json_invalid"
    _same([record], (), 10_000_000)


@pytest.mark.parametrize("size", [65_536, 65_537])
def test_a_value_over_max_bytes_is_refused_unread_and_one_of_max_bytes_is_not(size: int) -> None:
    head, tail = b'{"stock":"AAPL","value":1,"x":"', b'"}'
    record = Record("prices", 0, 0, b"AAPL", head + b"x" * (size - len(head) - len(tail)) + tail, [], NOW_MS)
    assert len(record.value or b"") == size
    assert (_reference(record, (), 65_536) == "too_large") is (size > 65_536)
    _same([record], ())
