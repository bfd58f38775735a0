"""What came out against what must come out: exactly once, in order, with the same numbers; and the offsets."""

import json
import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

from tests.support.broker import Broker
from tests.support.readers import Record
from tests.support.reference import Expected, Model, Update

TOLERANCE = 1e-5
SHOWN = 8  # lines of a kind in a failure's message
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_KEYS = [
    *["stock", "ts", "value", "falling", "falling_probability", "flipped", "forecast", "forecast_low", "forecast_high"],
    *["window", "model", "source"],
]


class Differences:
    """Collects what differs; `check` fails with the first few of each kind."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines: dict[str, list[str]] = {}

    def add(self, kind: str, line: object = "") -> None:
        self._lines.setdefault(kind, []).append(str(line))

    def check(self) -> None:
        if not self._lines:
            return
        text = [self._title]
        for kind, lines in self._lines.items():
            text.append(f"* {kind}: {len(lines)}")
            text += [f"    {line}" for line in lines[:SHOWN]]
        raise AssertionError("\n".join(text))


def same(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=0, abs_tol=TOLERANCE * max(1.0, abs(wanted)))


def check_predictions(predictions: list[Record], expected: Expected, model: Model, input_topic: str) -> None:
    """Every expected prediction exactly once, none else; per stock in order of the input; every field right."""
    few = 2 + len(expected.predictions) // 2_000  # chance alone; more would hide something
    assert expected.near <= few, f"{expected.near} probabilities within 1e-6 of a threshold"
    differences = Differences(f"{len(predictions)} predictions against {len(expected.predictions)} expected")
    seen: Counter[tuple[int, int]] = Counter()
    newest: dict[tuple[int, str], int] = {}
    for record in predictions:
        body = json.loads(record.value or b"", parse_constant=lambda text: differences.add("not finite", text))
        place = body["source"]["partition"], body["source"]["offset"]
        seen[place] += 1
        wanted = expected.predictions.get(place)
        if wanted is None:
            differences.add("not expected", f"{place} {body}")
            continue
        for line in _prediction_differences(record, body, place, wanted, expected, model, input_topic):
            differences.add("wrong", f"{place} {line}")
        stock = place[0], body["stock"]
        if seen[place] == 1:
            if newest.get(stock, -1) > place[1]:
                differences.add("out of order", f"{stock}: {place[1]} after {newest[stock]}")
            newest[stock] = place[1]
    for place, times in seen.items():
        if times > 1:
            differences.add("more than once", f"{place} {times} times")
    for place in expected.predictions.keys() - seen.keys():
        differences.add("missing", f"{place} {expected.predictions[place].event}")
    differences.check()


def _prediction_differences(
    record: Record,
    body: dict[str, object],
    place: tuple[int, int],
    wanted: Update,
    expected: Expected,
    model: Model,
    input_topic: str,
) -> list[str]:
    assert wanted.outlook is not None
    event, outlook = wanted.event, wanted.outlook
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=event.ts)
    exact = {
        "stock": event.stock,
        "value": event.values[0],
        "ts": f"{instant:%Y-%m-%dT%H:%M:%S}.{event.ts % 1000:03d}Z".rjust(24, "0"),
        "falling": wanted.falling,
        "flipped": wanted.flipped,
        "window": model.window,
        "model": model.version,
        "source": {"topic": input_topic, "partition": place[0], "offset": place[1]},
    }
    close = {
        "falling_probability": outlook.probability,
        "forecast": outlook.forecast,
        "forecast_low": outlook.low,
        "forecast_high": outlook.high,
    }
    wrong = [f"{name} {body.get(name)!r} not {value!r}" for name, value in exact.items() if body.get(name) != value]
    wrong += [
        f"{name} {body.get(name)!r} not {value!r}"
        for name, value in close.items()
        if not isinstance(body.get(name), int | float) or not same(float(str(body[name])), value)
    ]
    if list(body) != _KEYS:
        wrong.append(f"names {list(body)}")
    if record.key != event.stock.encode():
        wrong.append(f"key {record.key!r}")
    if not _TIME.fullmatch(str(body["ts"])):
        wrong.append(f"ts {body['ts']!r}")
    given = [value for name, value in expected.records[place].headers if name == "traceparent"]
    passed = [("traceparent", given[-1])] if given and given[-1] is not None and len(given[-1]) <= 256 else []
    if record.headers != passed:
        wrong.append(f"headers {record.headers} not {passed}")
    return wrong


def check_dead_letters(dead_letters: list[Record], expected: Expected, input_topic: str) -> None:
    """Every expected dead letter exactly once, none else; its reason, its source and the original record."""
    differences = Differences(f"{len(dead_letters)} dead letters against {len(expected.dead_letters)} expected")
    seen: Counter[tuple[int, int]] = Counter()
    for record in dead_letters:
        place = (
            int(record.header("downtick.source.partition") or -1),
            int(record.header("downtick.source.offset") or -1),
        )
        seen[place] += 1
        reason = expected.dead_letters.get(place)
        if reason is None:
            differences.add("not expected", f"{place} {record.headers}")
            continue
        for line in _dead_letter_differences(record, expected.records[place], reason, input_topic):
            differences.add("wrong", f"{place} {line}")
    for place, times in seen.items():
        if times > 1:
            differences.add("more than once", f"{place} {times} times")
    for place in expected.dead_letters.keys() - seen.keys():
        differences.add("missing", f"{place} {expected.dead_letters[place]} {expected.records[place].value!r}")
    differences.check()


def _dead_letter_differences(record: Record, source: Record, reason: str, input_topic: str) -> list[str]:
    wanted = {
        "downtick.reason": reason,
        "downtick.source.topic": input_topic,
        "downtick.source.timestamp": str(source.timestamp),
    }
    wrong = [f"{n} {record.header(n)!r} not {value!r}" for n, value in wanted.items() if record.header(n) != value]
    wrong += [f"no {n}" for n in ("downtick.message", "downtick.failed_at", "downtick.version") if not record.header(n)]
    if record.key != (source.key if source.key is None else source.key[:4_096]):
        wrong.append(f"key {record.key!r}")
    if record.value != (source.value if source.value is None else source.value[:65_536]):
        wrong.append(f"value {record.value!r}")
    original = [(name, value) for name, value in source.headers if not name.startswith("downtick.")]
    size = sum(len(name.encode()) + len(value or b"") for name, value in original)
    if size <= 32_768 and [pair for pair in record.headers if not pair[0].startswith("downtick.")] != original:
        wrong.append(f"headers {record.headers}")
    return wrong


def check_offsets(broker: Broker, group: str, topic: str, log: list[Record]) -> dict[int, int]:
    """The group has committed the log's end, less the control records and gaps behind the last record."""
    committed, ends = broker.committed(group, topic), broker.end_offsets(topic)
    after_last = dict.fromkeys(ends, 0)
    for record in log:
        after_last[record.partition] = max(after_last[record.partition], record.offset + 1)
    differences = Differences("committed offsets")
    for partition, end in ends.items():
        if after_last[partition] == 0 and partition not in committed:
            continue  # nothing was ever there to commit
        if not after_last[partition] <= committed.get(partition, -1) <= end:
            differences.add(
                "wrong",
                f"{partition}: {committed.get(partition)}, last record + 1 is {after_last[partition]}, end {end}",
            )
    differences.check()
    return committed
