"""`downtick history STOCK`: what the service remembers of one stock, straight from Redis."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.arguments import whole
from consumer.cli_errors import CommandError
from consumer.outputs import format_ts
from consumer.pricefile import STOCK_NAME
from consumer.rendering import count, number, plain, sparkline, timestamp
from consumer.stores import nothing_here, redis_store
from state.inspect import StockHistory, find, partitions
from state.layout import FALLING, FLIPPED, LAYOUT, PREDICTED
from state.names import nearest

if TYPE_CHECKING:
    import argparse

    from consumer.settings import Settings
    from state.store import RedisStore

DESCRIPTION = """\
Show one stock's recent values with the forecasts made at each, straight from Redis, whether the service runs or not.

Each row is one update. `next` is the forecast it led to, with its interval; `error` is the value minus the forecast
that the update before it had made, with a ! when the value was outside that forecast's interval.

examples:
  downtick history AAPL
  downtick history AAPL --limit 100
  downtick history ^GSPC --json | jq '.history[-1].forecast'"""

SETTINGS = ("redis", "kafka.group_id", "kafka.input_topic")

_ROWS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the stock, and how much of it is shown how."""
    parser.add_argument("stock", metavar="STOCK", help="its name, as in the events")
    parser.add_argument("--limit", type=whole, metavar="N", help=f"the newest N updates (default: {_ROWS}; JSON: all)")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(args: argparse.Namespace) -> int:
    """Find the stock and show it."""
    settings: Settings = args.settings
    if not STOCK_NAME.fullmatch(args.stock):
        raise CommandError(f"{args.stock!r} cannot be the name of a stock", code=2)
    with redis_store(settings) as store:
        found = find(store, args.stock)
        if not found:
            raise _unknown(store, args.stock, settings)
    # More than one partition: producers disagree on the partitioner, and each part is a history of its own.
    found.sort(key=lambda history: int(history.records["ts"][-1]), reverse=True)
    if args.json:
        for history in found:
            print(json.dumps(as_json(args.stock, history, args.limit), allow_nan=False))
        return 0
    console = Console()
    for history in found:
        _show(console, args.stock, history, args.limit or _ROWS)
    if len(found) > 1:
        console.print(
            Text(f"{args.stock} is on {len(found)} partitions: its producers do not use one partitioner", "bold yellow")
        )
    return 0


def _unknown(store: RedisStore, stock: str, settings: Settings) -> CommandError:
    """Why there is nothing to show of a stock."""
    found = partitions(store)
    if not found:
        return nothing_here(settings)
    layouts = {meta.layout for meta in map(store.read_meta, found) if meta} - {LAYOUT}
    if layouts:
        return CommandError(
            f"Redis holds layout {max(layouts)}, this program reads {LAYOUT}: use the service's version"
        )
    names = nearest(store, stock)
    if stock in names:
        return CommandError(
            f"the history of {stock!r} is damaged", hint="the service repairs it when it next writes or loads it"
        )
    return CommandError(f"no history of {stock!r}", hint=f"did you mean {', '.join(names)}?" if names else "")


def errors(history: StockHistory) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Each record's value minus the forecast that the record before it led to, and whether it was in the interval.

    Shapes (n,). Where no forecast was made the error is NaN, and the second is False."""
    records = history.records
    value = records["values"][:, 0]
    forecast, low, high = (np.concatenate(([np.nan], records[name][:-1])) for name in ("forecast", "low", "high"))
    with np.errstate(over="ignore", invalid="ignore"):  # ±1e308 are legal; the difference is shown as infinite
        return value - forecast, (low <= value) & (value <= high)


def as_json(stock: str, history: StockHistory, limit: int | None) -> dict[str, Any]:
    """The history as one JSON document; what was not predicted, or does not fit a number, is null."""
    meta, records = history.meta, history.records
    error, inside = errors(history)
    names = meta.fields.split(",") if meta.fields else []
    rows = []
    for record, off, hit in zip(records, error.tolist(), inside.tolist(), strict=True):
        flags, values = int(record["flags"]), record["values"].tolist()
        rows.append(
            {
                "index": int(record["index"]),
                "offset": int(record["offset"]),
                "ts": format_ts(int(record["ts"])).decode(),
                "value": values[0],
                **({"fields": dict(zip(names, values[1:], strict=True))} if names else {}),
                "predicted": bool(flags & PREDICTED),
                "forecast": _finite(record["forecast"]),
                "forecast_low": _finite(record["low"]),
                "forecast_high": _finite(record["high"]),
                "falling_probability": _finite(record["probability"]),
                "falling": bool(flags & FALLING),
                "flipped": bool(flags & FLIPPED),
                "error": _finite(off),
                "in_interval": None if math.isnan(off) else bool(hit),
            }
        )
    return {
        "stock": stock,
        "partition": history.partition,
        "values": int(records["index"][-1]),
        "kept": len(records),
        "depth": meta.depth,
        "generation": meta.generation,
        "watermark": meta.watermark,
        "model": meta.model,
        "history": rows if limit is None else rows[-limit:],
    }


def _finite(value: Any) -> float | None:
    given = float(str(value)) if isinstance(value, np.float32) else float(value)  # 0.1234, not 0.12340000271797180
    return given if math.isfinite(given) else None


def _show(console: Console, stock: str, history: StockHistory, limit: int) -> None:
    records, meta = history.records, history.meta
    values = records["values"][:, 0].tolist()
    falling = bool(int(records["flags"][-1]) & FALLING)
    head = Text(stock, "bold")
    head.append(f"  {number(values[-1])}", "bold")
    head.append("  ▼ falling" if falling else "  not falling", "bold red" if falling else "dim")
    head.append(
        f"  partition {history.partition} · {count(int(records['index'][-1]))} values, the newest "
        f"{count(len(records))} kept · model {plain(meta.model)}",
        "dim",
    )
    console.print(head, soft_wrap=True)
    console.print(Text(sparkline(values, min(console.width - 1, 120)), "red" if falling else "cyan"))
    console.print(_table(history, limit))
    console.print(Text(_score(history), "dim"), soft_wrap=True)


def _table(history: StockHistory, limit: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("event time", no_wrap=True)
    for name in ("value", "error", "next", "interval", "P"):
        table.add_column(name, justify="center" if name == "interval" else "right", no_wrap=True)
    table.add_column("falling", no_wrap=True)
    error, inside = errors(history)
    for i in range(max(0, len(history.records) - limit), len(history.records)):
        record, flags = history.records[i], int(history.records[i]["flags"])
        flag = Text("▼ yes" if flags & FALLING else "-", "red" if flags & FALLING else "dim")
        if flags & FLIPPED:
            flag.append(" ⇄", "bold yellow")
        off, outside = float(error[i]), not math.isnan(error[i]) and not inside[i]
        if flags & PREDICTED:
            forecast = number(float(record["forecast"]))
            interval = f"{number(float(record['low']))} … {number(float(record['high']))}"
            probability = f"{float(record['probability']):.3f}"
        else:
            forecast, interval, probability = "-", "warming up", "-"
        table.add_row(
            timestamp(int(record["ts"])).removesuffix(" 00:00:00Z"),
            number(float(record["values"][0])),
            Text(number(off) + (" !" if outside else "  "), "yellow" if outside else ""),
            forecast,
            Text(interval, "dim"),
            probability,
            flag,
        )
    return table


def _score(history: StockHistory) -> str:
    """How good the forecasts of the values kept were, against the naive one."""
    error, inside = errors(history)
    value = history.records["values"][:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        naive = np.abs(np.diff(value, prepend=np.nan))
    known = np.isfinite(error) & np.isfinite(naive)
    if not known.any():
        return "no forecast has met its value yet"
    with np.errstate(over="ignore"):
        ours, theirs = float(np.mean(np.abs(error[known]))), float(np.mean(naive[known]))
    hits = int(inside[known].sum())
    return (
        f"mean absolute error {number(ours)} over {count(int(known.sum()))} forecasts; the last value as forecast: "
        f"{number(theirs)}; in the interval: {round(100 * hits / int(known.sum()))} %"
    )
