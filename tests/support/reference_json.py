"""The reference's reading of the input contract (docs/contract.md): one record in, an event or a reason out.

Written from the contract alone, one rule after the other, with the standard library's JSON."""

import datetime as dt
import json
import math
import re
from dataclasses import dataclass

from tests.support.readers import Record

STOCK = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._:=/^+@&-]*")
RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
FIRST_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z
LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
MAX_NESTING, MAX_DIGITS = 200, 4_300


class Refused(Exception):
    """This record becomes a dead letter; `reason` is the contract's."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True)
class Event:
    """What the contract reads out of one record. `ts` is the event time in epoch milliseconds."""

    stock: str
    ts: int
    values: tuple[float, ...]  # the value, then the bundle's fields in its order


def read_event(record: Record, fields: tuple[str, ...], max_bytes: int = 65_536, max_ahead: float = 86_400) -> Event:
    """Raises Refused with the first reason that applies."""
    if record.value is not None and len(record.value) > max_bytes:
        raise Refused("too_large")
    if record.key is None:
        raise Refused("key_missing")
    body = read_json(record.value)
    if not isinstance(body, dict):
        raise Refused("schema_invalid", "not an object")
    stock = body.get("stock")
    if not isinstance(stock, str) or not 1 <= len(stock) <= 64 or not STOCK.fullmatch(stock):
        raise Refused("schema_invalid", "stock")
    value = _finite(body.get("value"), "value")
    given = body.get("fields", {})
    if not isinstance(given, dict):
        raise Refused("schema_invalid", "fields")
    numbers = {name: _finite(number, name) for name, number in given.items()}
    ts = _event_time(body, record.timestamp, max_ahead)
    for name in fields:
        if name not in numbers:
            raise Refused("schema_invalid", f"{name} is missing")
    if record.key != stock.encode():
        raise Refused("key_mismatch")
    return Event(stock, ts, (value, *(numbers[name] for name in fields)))


def _finite(number: object, what: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise Refused("schema_invalid", what)
    try:
        found = float(number)
    except OverflowError:
        raise Refused("schema_invalid", what) from None
    if not math.isfinite(found):
        raise Refused("schema_invalid", what)
    return found


def _event_time(body: dict[str, object], timestamp: int, max_ahead: float) -> int:
    if "ts" not in body:
        if not 0 <= timestamp <= LAST_MS:
            raise Refused("schema_invalid", "no ts, and no Kafka timestamp")
        return timestamp
    ts = body["ts"]
    if isinstance(ts, str):
        ts = read_time(ts)
    if isinstance(ts, bool) or not isinstance(ts, int) or not FIRST_MS <= ts <= LAST_MS:
        raise Refused("schema_invalid", "ts")
    if timestamp >= 0 and ts > timestamp + max_ahead * 1000:
        raise Refused("schema_invalid", "ts lies too far ahead")
    return ts


def read_time(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time, floored."""
    match = RFC3339.fullmatch(text)
    if match is None:
        raise Refused("schema_invalid", "ts")
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    if hour > 23 or minute > 59 or second > 59:  # leap seconds are refused: epoch time has no place for them
        raise Refused("schema_invalid", "ts")
    try:
        days = dt.date(year, month, day).toordinal() - dt.date(1970, 1, 1).toordinal()
    except ValueError:
        raise Refused("schema_invalid", "ts") from None
    seconds = days * 86_400 + hour * 3_600 + minute * 60 + second
    if match[8]:
        hours, minutes = int(match[9]), int(match[10])
        if hours > 23 or minutes > 59:
            raise Refused("schema_invalid", "ts")
        seconds += (-1 if match[8] == "+" else 1) * (hours * 3_600 + minutes * 60)
    return seconds * 1_000 + int(((match[7] or "") + "000")[:3])


def read_json(value: bytes | None) -> object:
    """RFC 8259 in UTF-8: no BOM, no nesting beyond 200, no integer beyond 4,300 digits, no lone surrogates."""
    try:
        text = (value or b"").decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise Refused("json_invalid", str(error)) from None
    if _nesting(text) > MAX_NESTING:
        raise Refused("json_invalid", "nested too deep")
    try:
        found = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise Refused("json_invalid", str(error)) from None
    _whole(found)
    return found


def _nesting(text: str) -> int:
    """Levels of arrays and objects; an empty one is no level."""
    bare = re.sub(r"\[\s*\]|\{\s*\}", "", re.sub(r'"(?:[^"\\]|\\.)*"', '""', text))
    depth = deepest = 0
    for letter in bare:
        if letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    return deepest


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise Refused("json_invalid", "too many digits")
    return int(digits)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The last of duplicate names wins; every string, in a list too, is looked at for halves of a surrogate pair."""
    for name, value in pairs:
        _whole(name)
        _whole(value)
    return dict(pairs)


def _whole(value: object) -> None:
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Refused("json_invalid", "half of a surrogate pair")
    elif isinstance(value, list):
        for item in value:
            _whole(item)
