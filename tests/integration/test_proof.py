"""The proof itself: it accepts what is right, and notices each single thing that can go wrong."""

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.compare import check_dead_letters, check_predictions
from tests.support.compare_redis import check_redis
from tests.support.readers import Record
from tests.support.reference import Expected, Outlook, Update, expect

TS = "2024-01-01T00:00:00.000Z"
TS_MS = 1_704_067_200_000


class Last3Model:
    """Three values back; the forecast is the last one, and it is falling when that is below the first."""

    version, window, reach, min_history, fields = "v", 3, 3, 3, ()
    falling_on, falling_off = 0.6, 0.4

    def outlooks(self, windows: list[list[tuple[float, ...]]]) -> list[Outlook]:
        found = []
        for window in windows:
            first, last = window[0][0], window[-1][0]
            found.append(Outlook(0.9 if last < first else 0.1, last, last - 1, last + 1, 1.0))
        return found


def _log(*values: object) -> list[Record]:
    """A log of one partition and one stock; a str is a record that is no JSON."""
    return [
        Record("in", 0, at, b"A", v.encode() if isinstance(v, str) else json.dumps(v).encode(), [], TS_MS + at)
        for at, v in enumerate(values)
    ]


def _event(value: float, ts: int) -> dict[str, object]:
    return {"stock": "A", "value": value, "ts": TS_MS + ts}


LOG = _log(_event(5, 0), _event(4, 1), _event(4, 1), "x", _event(3, 2), _event(9, 1), _event(2, 3), _event(8, 4))
EXPECTED = expect(LOG, Last3Model())


def _prediction(update: Update) -> Record:
    assert update.outlook is not None
    body = {
        "stock": "A",
        "ts": f"2024-01-01T00:00:00.00{update.event.ts - TS_MS}Z",
        "value": update.event.values[0],
        "falling": update.falling,
        "falling_probability": update.outlook.probability,
        "flipped": update.flipped,
        "forecast": update.outlook.forecast,
        "forecast_low": update.outlook.low,
        "forecast_high": update.outlook.high,
        "window": 3,
        "model": "v",
        "source": {"topic": "in", "partition": 0, "offset": update.offset},
    }
    return Record("out", 0, update.offset, b"A", json.dumps(body).encode())


def _dead_letter(place: tuple[int, int], reason: str) -> Record:
    source = EXPECTED.records[place]
    headers = {
        "downtick.reason": reason,
        "downtick.message": "why",
        "downtick.source.topic": "in",
        "downtick.source.partition": str(place[0]),
        "downtick.source.offset": str(place[1]),
        "downtick.source.timestamp": str(source.timestamp),
        "downtick.failed_at": TS,
        "downtick.version": "1",
    }
    return Record("dead", 0, 0, source.key, source.value, [(name, text.encode()) for name, text in headers.items()])


PREDICTIONS = [_prediction(update) for update in EXPECTED.predictions.values()]
DEAD_LETTERS = [_dead_letter(place, reason) for place, reason in EXPECTED.dead_letters.items()]


def test_the_reference_worked_by_hand() -> None:
    assert EXPECTED.dead_letters == {(0, 3): "json_invalid", (0, 5): "late"}
    assert EXPECTED.skipped == {(0, 0): "warming_up", (0, 1): "warming_up", (0, 2): "duplicate"}
    assert {place[1]: (u.falling, u.flipped) for place, u in EXPECTED.predictions.items()} == {
        4: (True, True),  # 5 4 3
        6: (True, False),  # 4 3 2
        7: (False, True),  # 3 2 8
    }


def test_right_outputs_are_accepted() -> None:
    check_predictions(PREDICTIONS, EXPECTED, Last3Model(), "in")
    check_dead_letters(DEAD_LETTERS, EXPECTED, "in")


def _changed(**changes: object) -> Callable[[list[Record]], list[Record]]:
    def change(records: list[Record]) -> list[Record]:
        body = json.loads(records[0].value or b"") | changes
        return [replace(records[0], value=json.dumps(body).encode()), *records[1:]]

    return change


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda records: records[1:], "missing: 1"),
        (lambda records: [*records, records[0]], "more than once: 1"),
        (lambda records: [records[1], records[0], records[2]], "out of order: 1"),
        (_changed(falling=False), "falling False not True"),
        (_changed(flipped=False), "flipped False not True"),
        (_changed(forecast=3.00004), "forecast 3.00004"),
        (_changed(forecast=math.nan), "not finite"),
        (_changed(value=3.0000000001), "value 3.0000000001"),
        (_changed(source={"topic": "in", "partition": 0, "offset": 3}), "not expected: 1"),
        (lambda records: [replace(records[0], key=b"B"), *records[1:]], "key b'B'"),
        (lambda records: [replace(records[0], headers=[("traceparent", b"x")]), *records[1:]], "headers"),
    ],
)
def test_a_wrong_prediction_is_noticed(wrong: Callable[[list[Record]], list[Record]], message: str) -> None:
    with pytest.raises(AssertionError) as failure:
        check_predictions(wrong(PREDICTIONS), EXPECTED, Last3Model(), "in")
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda records: records[1:], "missing: 1"),
        (lambda records: [*records, records[0]], "more than once: 1"),
        (lambda records: [_dead_letter((0, 3), "schema_invalid"), *records[1:]], "downtick.reason"),
        (lambda records: [*records, _dead_letter((0, 2), "late")], "not expected: 1"),
        (lambda records: [replace(records[0], value=b"y"), *records[1:]], "value b'y'"),
    ],
)
def test_a_wrong_dead_letter_is_noticed(wrong: Callable[[list[Record]], list[Record]], message: str) -> None:
    with pytest.raises(AssertionError) as failure:
        check_dead_letters(wrong(DEAD_LETTERS), EXPECTED, "in")
    assert message in str(failure.value)


class _FakeRedis:
    """Answers the three reads of the comparison."""

    def __init__(self, ring: bytes, stocks: set[bytes], watermark: int) -> None:
        self._ring, self._stocks, self._watermark = ring, stocks, watermark

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        assert key == "test:{g/in/0}:meta"
        return {b"generation": b"G", b"watermark": str(self._watermark).encode()}

    def smembers(self, key: str) -> set[bytes]:
        assert key == "test:{g/in/0}:G:stocks"
        return self._stocks

    def get(self, key: str) -> bytes | None:
        assert key == "test:{g/in/0}:G:h:A"
        return self._ring


def _ring(expected: Expected, depth: int, *, first: int = 0, renumber: int = 0) -> bytes:
    slots = [b"\0" * 72] * depth
    for index, update in list(enumerate(expected.histories[0, "A"], start=1))[first:]:
        outlook = update.outlook or Outlook(*[math.nan] * 5)
        at = index - renumber
        slots[(at - 1) % depth] = struct.pack(
            "<QqqdddddfI",
            *(at, update.offset, update.event.ts, update.event.values[0]),
            *(outlook.forecast, outlook.low, outlook.high, outlook.scale, outlook.probability),
            update.falling | 2 * (update.outlook is not None) | 4 * update.flipped,
        )
    return b"".join(slots).rstrip(b"\0") if len(expected.histories[0, "A"]) < depth else b"".join(slots)


def _check(ring: bytes, stocks: set[bytes] = {b"A"}, watermark: int = 7, depth: int = 4) -> None:  # noqa: B006 — not changed
    check_redis(_FakeRedis(ring, stocks, watermark), "test", "g", "in", EXPECTED, {0: 8}, reach=3, depth=depth)


def test_a_right_ring_is_accepted_also_one_that_was_rebuilt_with_fewer_updates() -> None:
    _check(_ring(EXPECTED, 4))
    _check(_ring(EXPECTED, 4, first=2, renumber=2))


def test_wrong_redis_is_noticed() -> None:
    ring = bytearray(_ring(EXPECTED, 4))
    with pytest.raises(AssertionError, match="watermark"):
        _check(bytes(ring), watermark=6)
    with pytest.raises(AssertionError, match="stocks"):
        _check(bytes(ring), stocks={b"A", b"B"})
    with pytest.raises(AssertionError, match="2 updates of 5"):
        _check(_ring(EXPECTED, 4, first=3, renumber=3))
    with pytest.raises(AssertionError, match="bytes, records have"):
        _check(bytes(ring[:-1]))
    ring[68] ^= 1  # the first slot's flags
    with pytest.raises(AssertionError, match="flags"):
        _check(bytes(ring))
