"""`downtick demo`: everything at once, on real prices."""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from consumer.cli_errors import CommandError
from consumer.demo import Parts
from consumer.pricefile import read_prices
from consumer.rendering import Board, count, duration, prediction_line
from consumer.traffic import Summary, Traffic

if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

    from consumer.pricefile import Prices
    from consumer.traffic import Seen

DESCRIPTION = """\
Starts an embedded Kafka and a real Redis on free local ports, creates the topics, starts the service as its own
process, replays the daily prices of five US stocks (2000 to 2013), and shows the predictions as they come:
a live table in a terminal, lines elsewhere. Ends after the replay, or by Ctrl-C; nothing is left running.

  falling   the stock is flagged as falling, ⇄ where the flag has just changed; P is the probability
  forecast  the next value, and the interval it should lie in nine times out of ten"""

_RATE_IN_A_TERMINAL = 100.0  # updates/s: two minutes to watch
_RATE_ELSEWHERE = 1000.0  # updates/s: done in twelve seconds
_NO_PROGRESS = 20.0  # seconds without any, after the last update was sent: something is wrong


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `downtick demo`."""
    parser.add_argument(
        "--rate",
        type=float,
        metavar="N",
        help="updates a second, 0 for as many as go "
        f"(default: {_RATE_IN_A_TERMINAL:g} in a terminal, else {_RATE_ELSEWHERE:g})",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N updates (default: all 12,154)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a bundle of your own instead of the one that ships")


def run(args: argparse.Namespace) -> int:
    """Start the parts, follow the traffic, tell the summary."""
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    terminal = sys.stdout.isatty() and os.environ.get("TERM") not in {None, "dumb", "unknown"}
    rate = args.rate if args.rate is not None else _RATE_IN_A_TERMINAL if terminal else _RATE_ELSEWHERE
    if rate < 0 or (args.limit is not None and args.limit < 1):
        raise CommandError("--rate and --limit must be positive", code=2)
    with as_file(files("consumer") / "data" / "daily-us" / "stocks.csv.gz") as path:
        prices = read_prices(path)
    prices = prices if args.limit is None else prices.first(args.limit)
    with Parts(model=args.model) as parts:
        view: _View
        with _Live(len(prices), began) if terminal else _Lines(len(prices), began) as view:
            for step in parts.start():
                view.step(step)
            summary = Summary(stocks=len(set(prices.stock.tolist())))
            ended = _follow(parts, prices, rate, view, summary, began)
        print(f"\n{ended}", *(f"  {line}" for line in summary.lines()), sep="\n", flush=True)
    return 0


def _leave(number: int, _: object) -> NoReturn:
    # Unwinds the main thread, so that the children are stopped in order.
    raise SystemExit(128 + number)


def _follow(parts: Parts, prices: Prices, rate: float, view: _View, summary: Summary, began: float) -> str:
    """Show the traffic until all of it is accounted for, or Ctrl-C; how it ended, in words.

    Raises: CommandError if a part died, or the service left updates without an answer."""
    board = Board()
    with Traffic(parts.settings, prices, rate) as traffic:
        moved, last_state = time.monotonic(), (0, 0, 0.0)
        try:
            while True:
                seen = traffic.take()
                for one in seen:
                    board.add(one.prediction, one.latency)
                    summary.add(one)
                if seen and summary.predictions == len(seen):
                    summary.first_prediction = time.monotonic() - began
                summary.updates, summary.seconds, summary.dead_letters = (
                    traffic.sent,
                    traffic.seconds,
                    traffic.dead_letters,
                )
                view.show(board, summary, seen)
                parts.check()
                if traffic.all_sent:
                    summary.metrics = parts.metrics()
                    if summary.complete():
                        return "done: every update is accounted for"
                    state = (summary.predictions, summary.dead_letters, summary.metrics.accounted)
                    if state != last_state:
                        moved, last_state = time.monotonic(), state
                    elif time.monotonic() - moved > _NO_PROGRESS:
                        raise parts.service.failure(
                            f"has answered only {_answered(summary)} of {count(summary.updates)} updates"
                        )
                time.sleep(0.1)
        except KeyboardInterrupt:
            summary.metrics = parts.metrics()
            return "stopped"


def _answered(summary: Summary) -> str:
    return count(round(summary.metrics.accounted))


class _View(Protocol):
    """How the demo looks."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def step(self, text: str) -> None:
        """Something has come up; "" while waiting for the next."""

    def show(self, board: Board, summary: Summary, seen: list[Seen]) -> None:
        """The state now, and what was seen since the last call."""


class _Lines:
    """Plain lines, for a pipe, a file, a CI log."""

    def __init__(self, total: int, began: float) -> None:
        self._total, self._began, self._last = total, began, 0.0

    def __enter__(self) -> Self:
        print("downtick demo: real daily prices of five US stocks through Kafka, Redis and the service", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, text: str) -> None:
        """Print it with the time since the command."""
        if text:
            print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def show(self, board: Board, summary: Summary, seen: list[Seen]) -> None:
        """Every two seconds the counts, and the last prediction of each stock."""
        first = bool(seen) and summary.predictions == len(seen)
        if not first and time.monotonic() - self._last < 2:
            return
        self._last = time.monotonic()
        self.step(f"{count(summary.updates)} of {count(self._total)} updates sent · {board.caption()}")
        for _, prediction in sorted({one.prediction["stock"]: one.prediction for one in seen}.items()):
            print(f"          {prediction_line(prediction)}", flush=True)


class _Live:
    """A table that stays in place, for a terminal."""

    def __init__(self, total: int, began: float) -> None:
        self._total, self._began = total, began
        self._console = Console()
        self._steps: list[str] = []
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def step(self, text: str) -> None:
        """Add it to the list of what is up."""
        if text:
            self._steps.append(text)
        waiting = ("Kafka", "Redis", "the service: it loads its model and warms it up", "the first predictions")
        since = duration(time.monotonic() - self._began)
        line = Text(f"  … {waiting[min(len(self._steps), 3)]} ({since})", "yellow")
        self._live.update(Group(*self._head(), line), refresh=True)

    def show(self, board: Board, summary: Summary, seen: list[Seen]) -> None:  # noqa: ARG002 - the board has it all
        """Draw the table again."""
        bar = ProgressBar(total=self._total, completed=summary.updates, width=40)
        sent = Text(f"  {count(summary.updates)} of {count(self._total)} updates sent; Ctrl-C ends the demo", "dim")
        table = board.table(10, columns=self._console.width)
        self._live.update(Group(*self._head(), bar, sent, Text(), table), refresh=True)

    def _head(self) -> list[Text]:
        title = Text("downtick demo: real daily prices of five US stocks through Kafka, Redis and the service", "bold")
        return [title, *(Text.assemble(("  ✓ ", "green"), step) for step in self._steps)]
