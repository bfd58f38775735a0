"""Outputs: the bytes that go to the two topics."""

import hashlib
import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.events import Rejection
from consumer.outputs import FALSE, TRUE, PredictionEncoder, dead_letter, format_ts, traceparent
from tests.unit.consumer.doubles import NOON_MS, Message

FAILED_AT = b"2024-01-01T12:00:09.000Z"
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def prediction(
    value: float = 189.98,
    forecast: float = 190.21,
    low: float = 187.9,
    high: float = 192.4,
    probability: float = 0.1234,
    version: str = "2026-11-23T120000Z-3fa9c1",
    topic: str = "prices",
) -> bytes:
    encoder = PredictionEncoder(32, version, topic, 3)
    falling, flipped = False, True
    return encoder.encode(
        (
            b"AAPL",
            format_ts(1_795_444_200_000),
            value,
            TRUE if falling else FALSE,
            probability,
            TRUE if flipped else FALSE,
            forecast,
            low,
            high,
            12345,
        )
    )


def letter(record: Message, message: str = "why") -> tuple[bytes | None, bytes | None, dict[str, bytes | None]]:
    key, value, headers = dead_letter(record, Rejection(0, "late", message), ("prices", 3), FAILED_AT, "0.1.0")
    assert headers is not None
    assert len(dict(headers)) == len(headers)
    return key, value, dict(headers)


def headers_of(record: Message) -> list[tuple[str, bytes | None]]:
    """The record's own headers, as the dead letter carries them."""
    found = dead_letter(record, Rejection(0, "late", "why"), ("prices", 3), FAILED_AT, "0.1.0")[2]
    assert found is not None
    return [(name, value) for name, value in found if not name.startswith("downtick.")]


# --- predictions


def test_a_prediction_is_the_contracts_json_to_the_byte() -> None:
    assert prediction() == (
        b'{"stock":"AAPL","ts":"2026-11-23T14:30:00.000Z","value":189.98,'
        b'"falling":false,"falling_probability":0.1234,"flipped":true,'
        b'"forecast":190.21,"forecast_low":187.9,"forecast_high":192.4,'
        b'"window":32,"model":"2026-11-23T120000Z-3fa9c1","source":{"topic":"prices","partition":3,"offset":12345}}'
    )


def test_a_name_with_a_percent_sign_or_a_quote_stays_what_it_is() -> None:
    body = json.loads(prediction(version='a"%d\\%', topic="t.%s"))
    assert body["model"] == 'a"%d\\%'
    assert body["source"] == {"topic": "t.%s", "partition": 3, "offset": 12345}


@pytest.mark.parametrize(
    "edge",
    [0.0, -0.0, 5e-324, -5e-324, sys.float_info.min, 1e308, -1e308, sys.float_info.max, 0.1 + 0.2, 2.0**63, 1e22],
)
def test_numbers_at_the_edges_parse_back(edge: float) -> None:
    body = json.loads(prediction(value=edge, forecast=edge / 2, low=edge / 2, high=edge / 2))
    assert body["value"] == edge
    assert math.copysign(1, body["value"]) == math.copysign(1, edge)
    for name in ("forecast", "forecast_low", "forecast_high"):
        assert body[name] == pytest.approx(edge / 2, rel=1e-11, abs=1e-323)


@settings(deadline=None)  # another process may have the core
@given(value=FINITE, forecast=FINITE, probability=st.floats(0, 1, width=32))
def test_every_finite_number_is_json(value: float, forecast: float, probability: float) -> None:
    body = json.loads(
        prediction(value=value, forecast=forecast, probability=probability),
        parse_constant=pytest.fail,
    )
    assert body["value"] == value
    assert body["forecast"] == pytest.approx(forecast, rel=1e-11, abs=1e-320)
    assert body["falling_probability"] == pytest.approx(probability, rel=1e-6, abs=1e-44)


def test_the_largest_float_does_not_round_into_infinity() -> None:
    body = json.loads(prediction(forecast=sys.float_info.max, low=-sys.float_info.max, high=sys.float_info.max))
    assert math.isfinite(body["forecast"])
    assert math.isfinite(body["forecast_low"])
    assert math.isfinite(body["forecast_high"])


@pytest.mark.parametrize(
    ("ts_ms", "text"),
    [
        (0, b"1970-01-01T00:00:00.000Z"),
        (-1, b"1969-12-31T23:59:59.999Z"),
        (NOON_MS + 7, b"2024-01-01T12:00:00.007Z"),
        (-62_135_596_800_000, b"0001-01-01T00:00:00.000Z"),
        (253_402_300_799_999, b"9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_rfc_3339_in_utc_with_milliseconds(ts_ms: int, text: bytes) -> None:
    assert format_ts(ts_ms) == text
    assert format_ts(int(np.int64(ts_ms))) == text


# --- traceparent

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, None),
        ([], None),
        ([("x", b"1")], None),
        ([("x", b"1"), ("traceparent", TRACE), ("y", b"2")], [("traceparent", TRACE)]),
        ([("traceparent", b"old"), ("traceparent", TRACE)], [("traceparent", TRACE)]),  # the last one counts
        ([("Traceparent", TRACE)], None),
        ([("traceparent", b"x" * 256)], [("traceparent", b"x" * 256)]),
        ([("traceparent", b"x" * 257)], None),
        ([("traceparent", TRACE), ("traceparent", b"x" * 257)], None),
        ([("traceparent", None)], None),
    ],
)
def test_a_traceparent_passes_through_alone(
    headers: list[tuple[str, bytes | None]] | None, expected: list[tuple[str, bytes]] | None
) -> None:
    assert traceparent(Message(headers_=headers)) == expected


# --- dead letters


def test_a_dead_letter_is_the_record_and_what_went_wrong() -> None:
    record = Message(b"AAPL", b"not json", 12345, NOON_MS, [("x", b"1"), ("empty", None), ("x", b"2")])
    key, value, headers = dead_letter(
        record, Rejection(0, "json_invalid", "expected ident — here"), ("prices", 3), FAILED_AT, "0.1.0"
    )
    assert (key, value) == (b"AAPL", b"not json")
    assert headers == [
        ("x", b"1"),
        ("empty", None),
        ("x", b"2"),
        ("downtick.reason", b"json_invalid"),
        ("downtick.message", "expected ident — here".encode()),
        ("downtick.source.topic", b"prices"),
        ("downtick.source.partition", b"3"),
        ("downtick.source.offset", b"12345"),
        ("downtick.source.timestamp", b"1704110400000"),
        ("downtick.failed_at", b"2024-01-01T12:00:09.000Z"),
        ("downtick.version", b"0.1.0"),
        ("downtick.value.size", b"8"),
        ("downtick.value.sha256", b"7ccfa1fbf3940e6f0c0375d87c0f9235a50514e14cb427bdfaf5077987b26ccf"),  # sha256sum
    ]


def test_a_missing_key_and_value_stay_missing() -> None:
    key, value, headers = letter(Message(None, None, timestamp_=-1))
    assert (key, value) == (None, None)
    assert headers["downtick.value.size"] == b"0"
    # SHA-256 of nothing, as FIPS 180-4's examples have it
    assert headers["downtick.value.sha256"] == b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert headers["downtick.source.timestamp"] == b"-1"


def test_key_and_value_are_cut_to_their_caps_while_size_and_hash_tell_the_whole_value() -> None:
    value = bytes(range(256)) * 257  # 65,792 bytes
    cut_key, cut_value, headers = letter(Message(b"k" * 4_097, value))
    assert cut_key == b"k" * 4_096
    assert cut_value == value[:65_536]
    assert headers["downtick.value.size"] == b"65792"
    assert headers["downtick.value.sha256"] == hashlib.sha256(value).hexdigest().encode()


def test_key_and_value_of_exactly_their_caps_are_whole() -> None:
    key, value, _ = letter(Message(b"k" * 4_096, b"v" * 65_536))
    assert (len(key or b""), len(value or b"")) == (4_096, 65_536)


def test_headers_are_kept_until_32_kib_and_the_one_that_crosses_is_cut() -> None:
    # name + value: 1 + 20,000, then 1 + 12,766 is all that is left of 32,768
    headers = [("a", b"1" * 20_000), ("b", b"2" * 20_000), ("c", b"3")]
    assert headers_of(Message(headers_=headers)) == [("a", b"1" * 20_000), ("b", b"2" * 12_766)]


def test_headers_of_exactly_32_kib_are_whole() -> None:
    headers = [("a", b"1" * 20_000), ("b", b"2" * 12_766)]
    assert headers_of(Message(headers_=headers)) == headers


def test_names_count_and_one_that_does_not_fit_ends_the_headers() -> None:
    assert headers_of(Message(headers_=[("n" * 32_769, b"1"), ("b", b"2")])) == []
    many = [("n" * 100, None)] * 1_000
    assert headers_of(Message(headers_=many)) == many[:327]  # 32,768 = 327 · 100 + 68


def test_a_dead_letter_that_was_replayed_loses_its_old_diagnosis() -> None:
    record = Message(headers_=[("downtick.reason", b"json_invalid"), ("x", b"1"), ("downtick.other", b"2")])
    _, _, headers = letter(record)
    assert headers["downtick.reason"] == b"late"
    assert headers["x"] == b"1"
    assert "downtick.other" not in headers


def test_a_message_is_cut_to_1_kib_between_characters() -> None:
    _, _, headers = letter(Message(), "x" + "é" * 600)  # 1 + 1,200 bytes; byte 1,024 is the middle of an é
    assert headers["downtick.message"] == ("x" + "é" * 511).encode()
    assert len(headers["downtick.message"] or b"") == 1_023


def test_a_message_that_is_no_unicode_is_still_written() -> None:
    _, _, headers = letter(Message(), "a\ud800b")
    assert headers["downtick.message"] == b"a?b"


class UnreadableHeaders(Message):
    """As confluent_kafka has it for a header name that is not UTF-8."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    def set_headers(self, value: list[tuple[str, bytes | None]]) -> None:
        replaced.append(value)


replaced: list[list[tuple[str, bytes | None]]] = []


def test_headers_that_cannot_be_read_are_left_out_and_never_touched_again() -> None:
    replaced.clear()
    assert traceparent(UnreadableHeaders()) is None
    key, value, headers = letter(UnreadableHeaders(b"A", b"x"))
    assert (key, value) == (b"A", b"x")
    assert all(name.startswith("downtick.") for name in headers)
    assert replaced == [[], []]
