"""Redis against the fold of the log, read with nothing but the layout that the documentation gives."""

import math
import struct
from typing import Any

from tests.support.compare import Differences, same
from tests.support.reference import Expected, Update


def check_redis(
    client: Any,  # a redis.Redis or redis.RedisCluster, without decode_responses
    prefix: str,
    group: str,
    topic: str,
    expected: Expected,
    committed: dict[int, int],
    *,
    reach: int,
    depth: int = 128,
    channels: int = 1,
) -> None:
    """Redis holds the fold of the log: per partition the meta, the set of stocks, and each stock's ring.

    A ring that was rebuilt may hold fewer than `depth` updates, never fewer than the model reaches back."""
    differences = Differences("Redis against the fold of the log")
    record = struct.Struct(f"<Qqq{channels}d4dfI")
    for partition in sorted({partition for partition, _ in expected.records}):
        tag = f"{prefix}:{{{group}/{topic}/{partition}}}"
        meta = {name.decode(): value.decode() for name, value in client.hgetall(f"{tag}:meta").items()}
        if not meta:
            differences.add("no meta", tag)
            continue
        if int(meta["watermark"]) + 1 != committed.get(partition):
            differences.add("watermark", f"{tag} {meta['watermark']}, committed next offset {committed.get(partition)}")
        generation = meta["generation"]
        histories = {stock: updates for (where, stock), updates in expected.histories.items() if where == partition}
        stocks = {stock.decode() for stock in client.smembers(f"{tag}:{generation}:stocks")}
        if stocks != histories.keys():
            differences.add(
                "stocks", f"{tag} only there {stocks - histories.keys()} missing {histories.keys() - stocks}"
            )
        for stock, updates in histories.items():
            blob = client.get(f"{tag}:{generation}:h:{stock}")
            for line in _ring_differences(blob, record, updates, reach=reach, depth=depth, channels=channels):
                differences.add("ring", f"{tag} {stock}: {line}")
    differences.check()


def _ring_differences(
    blob: bytes | None, record: struct.Struct, updates: list[Update], *, reach: int, depth: int, channels: int
) -> list[str]:
    if blob is None or len(blob) % record.size or len(blob) > depth * record.size:
        return [f"{None if blob is None else len(blob)} bytes, records have {record.size}"]
    slots = list(record.iter_unpack(blob))
    held = sorted((slot for slot in slots if slot[0]), key=lambda slot: slot[0])
    if not held:
        return ["empty"]
    newest = held[-1][0]
    held = [slot for slot in held if slot[0] > newest - depth]
    if any(slots[(slot[0] - 1) % depth] is not slot for slot in held):
        return ["a record in another's slot"]
    if [slot[0] for slot in held] != list(range(newest - len(held) + 1, newest + 1)):
        return [f"indices {[slot[0] for slot in held]}"]
    if not min(len(updates), reach) <= len(held) <= min(len(updates), depth):
        return [f"{len(held)} updates of {len(updates)}"]
    wrong = []
    for slot, update in zip(held, updates[-len(held) :], strict=True):
        wrong += [f"offset {update.offset}: {line}" for line in _entry_differences(slot, update, channels)]
    return wrong


def _entry_differences(slot: tuple[Any, ...], update: Update, channels: int) -> list[str]:
    offset, ts, values, rest = slot[1], slot[2], slot[3 : 3 + channels], slot[3 + channels :]
    if (offset, ts, values) != (update.offset, update.event.ts, update.event.values):
        return [f"{(offset, ts, values)} not {(update.offset, update.event.ts, update.event.values)}"]
    forecast, low, high, scale, probability, flags = rest
    outlook = update.outlook
    wrong = []
    if flags != update.falling * 1 + (outlook is not None) * 2 + (update.flipped and outlook is not None) * 4:
        wrong.append(f"flags {flags} not falling={update.falling} flipped={update.flipped}")
    found = forecast, low, high, scale, probability
    if outlook is None:
        if not all(map(math.isnan, found)):
            wrong.append(f"a forecast {found} where there was none")
        return wrong
    wanted = outlook.forecast, outlook.low, outlook.high, outlook.scale, outlook.probability
    if not all(same(a, b) for a, b in zip(found, wanted, strict=True)):
        wrong.append(f"{found} not {wanted}")
    return wrong
