"""Decoding: every rule of the contract, by the event or the reason that comes back."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.events import EventDecoder, Events
from tests.unit.consumer.doubles import NOON_MS, Message

DAY = 86_400


def decode(*records: Message, fields: tuple[str, ...] = (), max_bytes: int = 200, max_ahead: float = DAY) -> Events:
    return EventDecoder(fields, max_bytes, max_ahead).decode(records)


def reason(value: bytes | None, key: bytes | None = b"A", *, fields: tuple[str, ...] = ()) -> str | None:
    """Why such a record is refused; None if it is an event."""
    events = decode(Message(key, value), fields=fields)
    assert len(events.rejections) + len(events.stocks) == 1
    return events.rejections[0].reason if events.rejections else None


def message(value: bytes | None, key: bytes | None = b"A", timestamp: int = NOON_MS) -> str:
    return decode(Message(key, value, 0, timestamp)).rejections[0].message


def written(ts: object) -> bytes:
    return json.dumps({"stock": "A", "value": 1, "ts": ts}).encode()


def ts(text: object, timestamp: int = -1) -> int | str:
    """The event time in milliseconds, or why it is refused."""
    events = decode(Message(b"A", written(text), 0, timestamp))
    return int(events.ts[0]) if len(events.ts) else events.rejections[0].reason


def test_an_event_becomes_a_row_of_columns() -> None:
    record = Message(
        b"AAPL",
        b'{"stock": "AAPL", "value": 189.98, "ts": "2024-01-01T12:00:00Z", "fields": {"volume": 1200, "bid": 3.5}}',
        offset_=77,
        timestamp_=NOON_MS + 5,
    )
    events = decode(record, fields=("bid", "volume"))
    assert events.rejections == []
    assert events.stocks == ["AAPL"]
    assert (events.position.tolist(), events.offset.tolist()) == ([0], [77])
    assert (events.ts.tolist(), events.timestamp.tolist()) == ([NOON_MS], [NOON_MS + 5])
    assert events.values.tolist() == [[189.98, 3.5, 1200.0]]  # the value, then the bundle's fields in its order
    assert events.values.dtype == np.float64


def test_positions_tell_events_and_rejections_apart() -> None:
    good, bad = Message(), Message(value_=b"?")
    events = decode(bad, good, bad, good)
    assert events.position.tolist() == [1, 3]
    assert [r.position for r in events.rejections] == [0, 2]


def test_no_records_are_no_events() -> None:
    events = decode(fields=("volume",))
    assert (events.stocks, events.rejections, events.values.shape) == ([], [], (0, 2))


# --- reasons, and which comes first

LONG = b'{"stock":"A","value":1,"x":"' + b"x" * 200 + b'"}'


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        (LONG, b"A", "too_large"),
        (LONG, None, "too_large"),  # before key_missing
        (b"x" * 201, b"B", "too_large"),  # before json_invalid and key_mismatch
        (b"?", None, "key_missing"),  # before json_invalid
        (b'{"stock":"A"}', None, "key_missing"),  # before schema_invalid
        (b"?", b"B", "json_invalid"),
        (b"", b"A", "json_invalid"),
        (None, b"A", "json_invalid"),  # a tombstone
        (b'{"stock":"A","value":1} x', b"A", "json_invalid"),
        (b'{"stock":"A","value":1', b"A", "json_invalid"),
        (b'\xef\xbb\xbf{"stock":"A","value":1}', b"A", "json_invalid"),
        (b'{"stock":"\xff","value":1}', b"\xff", "json_invalid"),
        (b'{"stock":"A","value":"1"}', b"B", "schema_invalid"),  # before key_mismatch
        (b"[]", b"A", "schema_invalid"),
        (b"null", b"A", "schema_invalid"),
        (b'{"value":1}', b"A", "schema_invalid"),
        (b'{"stock":"A"}', b"A", "schema_invalid"),
        (b'{"stock":"A","value":1}', b"B", "key_mismatch"),
        (b'{"stock":"A","value":1}', b"", "key_mismatch"),
        (b'{"stock":"A","value":1}', b"A\n", "key_mismatch"),
        (b'{"stock":"A","value":1}', b"A", None),
    ],
)
def test_a_record_has_the_first_reason_that_applies(value: bytes | None, key: bytes | None, expected: str) -> None:
    assert reason(value, key) == expected


def test_a_value_of_exactly_max_bytes_is_read() -> None:
    value = b'{"stock":"A","value":1}'
    assert decode(Message(b"A", value), max_bytes=len(value)).stocks == ["A"]
    assert decode(Message(b"A", value), max_bytes=len(value) - 1).rejections[0].reason == "too_large"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("1", 1.0),
        ("-0.0", -0.0),
        ("5e-324", 5e-324),
        ("1e308", 1e308),
        ("-1.7976931348623157e308", -1.7976931348623157e308),
        ("1e-400", 0.0),
        ("12345678901234567890", 12345678901234567890.0),
        ("1e400", None),
        ("NaN", None),
        ("Infinity", None),
        ("-Infinity", None),
        ('"1"', None),
        ("true", None),
        ("null", None),
        ("[1]", None),
        ("{}", None),
    ],
)
def test_a_value_is_a_finite_json_number(number: str, expected: float | None) -> None:
    record = Message(b"A", b'{"stock":"A","value":%b}' % number.encode())
    events = decode(record)
    if expected is None:
        assert [r.reason for r in events.rejections] == ["schema_invalid"]
    else:
        assert events.values[0, 0] == expected
        assert math.copysign(1, events.values[0, 0]) == math.copysign(1, expected)


@pytest.mark.parametrize(
    "stock", ["A", "^GSPC", "9", "BRK.B", "a-b_c", "EUR/USD", "X:NYSE", "ES=F", "S&P+500@x^", "x" * 64]
)
def test_a_stock_of_the_contract_is_taken(stock: str) -> None:
    assert reason(json.dumps({"stock": stock, "value": 1}).encode(), stock.encode()) is None


@pytest.mark.parametrize("stock", ["", "x" * 65, ".A", "-A", "_A", "A B", "A\n", "A*", "A{", "Ä", "A,", "Ａ"])
def test_any_other_stock_is_not(stock: str) -> None:
    assert reason(json.dumps({"stock": stock, "value": 1}).encode(), stock.encode()) == "schema_invalid"


def test_unknown_members_are_ignored_and_the_last_of_duplicates_wins() -> None:
    events = decode(Message(b"A", b'{"x":[{}],"stock":"B","value":1,"stock":"A","value":2,"nan":NaN}'))
    assert events.values.tolist() == [[2.0]]


def test_the_message_names_what_is_wrong() -> None:
    assert message(b'{"stock":"A","value":"1"}').startswith("`value`: Input should be a valid number")
    assert message(None) == "the record has no value"
    assert "201 bytes, events.max_bytes is 200" in message(b"x" * 201)
    assert "RFC 3339 string or an integer" in message(b'{"stock":"A","value":1,"ts":1.5}')
    assert message(b'{"stock":"A","value":1}', b"B") == "the key is b'B', the stock 'A': they must be equal"


# --- fields


@pytest.mark.parametrize(
    ("given_fields", "expected"),
    [
        ('{"volume":1}', None),
        ('{"volume":1,"other":2}', None),
        ("{}", "schema_invalid"),
        ('{"volume":"1"}', "schema_invalid"),
        ('{"volume":true}', "schema_invalid"),
        ('{"volume":NaN}', "schema_invalid"),
        ('{"volume":1e400}', "schema_invalid"),
        ('{"volume":1,"other":"2"}', "schema_invalid"),  # every field is a number, asked for or not
        ("[]", "schema_invalid"),
        ("null", "schema_invalid"),
    ],
)
def test_the_fields_that_the_model_needs_must_be_there(given_fields: str, expected: str | None) -> None:
    value = b'{"stock":"A","value":1,"fields":%b}' % given_fields.encode()
    assert reason(value, fields=("volume",)) == expected


def test_fields_that_nobody_needs_may_be_missing() -> None:
    assert reason(b'{"stock":"A","value":1}') is None
    assert reason(b'{"stock":"A","value":1}', fields=("volume",)) == "schema_invalid"
    refused = decode(Message(), fields=("volume",)).rejections[0]
    assert refused.message == "`fields` lacks 'volume', which the model needs"


# --- event time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-01-01T12:00:00Z", NOON_MS),
        ("2024-01-01T13:30:00+01:30", NOON_MS),
        ("2024-01-01T00:00:00-12:00", NOON_MS),
        ("2024-01-01T12:00:00-00:00", NOON_MS),
        ("2024-01-01T12:00:00.5Z", NOON_MS + 500),
        ("2024-01-01T12:00:00.123456789+00:00", NOON_MS + 123),
        ("2024-01-01T12:00:00.9999999999999Z", NOON_MS + 999),  # floored, not rounded into the next second
        ("1969-12-31T23:59:59.9999Z", -1),  # the floor of −0.1 ms
        ("1969-12-31T23:59:59.0001Z", -1000),
        ("1969-12-31T23:59:58.9995Z", -1001),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
    ],
)
def test_a_time_is_floored_to_milliseconds(text: str, expected: int) -> None:
    assert ts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01 12:00:00Z",  # T is needed
        "2024-01-01t12:00:00Z",
        "2024-01-01T12:00:00z",
        "2024-01-01T12:00:00",  # an offset is needed
        "2024-01-01",
        "2024-01-01T12:00Z",
        "20240101T120000Z",
        "2024-W01-1T12:00:00Z",
        "2024-01-01T12:00:00+0100",
        "2024-01-01T12:00:00+01",
        "2024-01-01T12:00:00+24:00",
        "2024-01-01T12:00:00,5Z",
        "2024-01-01T12:00:00.Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T12:00:60Z",
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",  # the year 0 in UTC
        "9999-12-31T23:59:59-00:01",  # the year 10000 in UTC
        "12024-01-01T12:00:00Z",
        "-2024-01-01T12:00:00Z",
        "２０24-01-01T12:00:00Z",  # digits, but not ASCII's
        "2024-01-01T12:00:00Z\n",
        " 2024-01-01T12:00:00Z",
        "1704110400000",
        "now",
        "",
    ],
)
def test_any_other_text_is_no_time(text: str) -> None:
    assert ts(text) == "schema_invalid"


@pytest.mark.parametrize("number", [0, -1, NOON_MS, -62_135_596_800_000, 253_402_300_799_999])
def test_an_integer_is_epoch_milliseconds(number: int) -> None:
    assert ts(number) == number


@pytest.mark.parametrize(
    "number", [-62_135_596_800_001, 253_402_300_800_000, 10**30, -(10**30), 1.5, 1e3, True, None, [], {}]
)
def test_what_is_outside_the_years_1_to_9999_or_no_integer_is_refused(number: object) -> None:
    assert ts(number) == "schema_invalid"


@settings(deadline=None)  # another process may have the core
@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001  # hypothesis wants naive bounds
def test_every_way_to_write_an_instant_gives_its_milliseconds(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = moment.isoformat(timespec="microseconds")
    assert ts(text) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def test_without_ts_the_kafka_timestamp_is_the_event_time() -> None:
    events = decode(Message(timestamp_=NOON_MS), Message(timestamp_=0))
    assert events.ts.tolist() == [NOON_MS, 0]


@pytest.mark.parametrize("timestamp", [-1, 253_402_300_800_000])
def test_without_ts_and_without_a_kafka_timestamp_there_is_no_event(timestamp: int) -> None:
    assert decode(Message(timestamp_=timestamp)).rejections[0].reason == "schema_invalid"


def test_an_event_may_be_max_ahead_past_its_record_and_no_millisecond_more() -> None:
    assert ts(NOON_MS + DAY * 1000, NOON_MS) == NOON_MS + DAY * 1000
    assert ts(NOON_MS + DAY * 1000 + 1, NOON_MS) == "schema_invalid"
    assert ts("2024-01-02T12:00:00.001Z", NOON_MS) == "schema_invalid"
    assert ts(NOON_MS + DAY * 1000 + 1) == NOON_MS + DAY * 1000 + 1  # the record has no timestamp to compare with
    assert ts(0, NOON_MS) == 0  # any age is legal


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (NOON_MS // 1000, NOON_MS // 1000),  # seconds: January 1970, legal and long ago
        (NOON_MS * 1000, "schema_invalid"),
        (NOON_MS * 1_000_000, "schema_invalid"),
    ],
)
def test_a_time_in_micro_or_nanoseconds_is_refused(number: int, expected: object) -> None:
    assert ts(number, NOON_MS) == expected


def test_the_message_about_a_wrong_unit_asks_for_it() -> None:
    assert "is its unit milliseconds?" in message(written(NOON_MS * 100), timestamp=NOON_MS)
    assert "it must be epoch milliseconds" in message(written(NOON_MS * 1000), timestamp=NOON_MS)
