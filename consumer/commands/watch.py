"""`downtick watch`: the predictions as they are published."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, Message
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from consumer.arguments import positive, whole
from consumer.cli_errors import CommandError
from consumer.kafka_options import reader_options
from consumer.rendering import Board, count, plain, prediction_line
from consumer.tail import Tail

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from consumer.settings import Settings

DESCRIPTION = """\
Follow the predictions: a live table on a terminal, one line each otherwise, JSON lines with --json. Only committed
predictions are shown, each once; nothing is written and no group is joined, so watching never disturbs the service.

examples:
  downtick watch                              from now on
  downtick watch --from-beginning             all there is, then what comes
  downtick watch --falling                    only stocks that are falling
  downtick watch --flips                      only the moments at which a stock begins or ends to fall
  downtick watch --stock AAPL --stock IBM
  downtick watch --flips --json | jq -r .stock
  downtick watch --from-beginning --until-end --json > predictions.jsonl
  downtick watch --count 1 --timeout 60       wait for the first one; exit code 1 if none comes"""

SETTINGS = ("kafka",)

_REDRAW_EVERY = 0.25  # seconds


@dataclass(frozen=True)
class _Wanted:
    """Which predictions are shown."""

    falling: bool
    flips: bool
    stocks: frozenset[str]

    def follows(self, prediction: Mapping[str, Any]) -> bool:
        """Whether the table must know it: a stock that is no longer falling has to leave."""
        return (not self.stocks or prediction["stock"] in self.stocks) and (
            not self.flips or prediction["flipped"] is True
        )

    def shows(self, prediction: Mapping[str, Any]) -> bool:
        return self.follows(prediction) and (not self.falling or prediction["falling"] is True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is shown, how, and when it ends."""
    parser.add_argument("--falling", action="store_true", help="only stocks flagged as falling")
    parser.add_argument("--flips", action="store_true", help="only predictions that changed their stock's flag")
    parser.add_argument("--stock", action="append", default=[], metavar="S", help="only this stock; may be repeated")
    parser.add_argument("--json", action="store_true", help="the records as they are, one a line")
    parser.add_argument("--lines", action="store_true", help="one line each, on a terminal too")
    parser.add_argument("--from-beginning", action="store_true", help="begin with the oldest prediction kept")
    parser.add_argument("--until-end", action="store_true", help="end when all there is has been shown")
    parser.add_argument("--count", type=whole, metavar="N", help="end after N predictions")
    parser.add_argument(
        "--timeout", type=positive, metavar="S", help="end after S seconds; exit 1 if --count was not met"
    )


def run(args: argparse.Namespace) -> int:
    """Follow until it is enough."""
    settings: Settings = args.settings
    topic = settings.kafka.output_topic
    wanted = _Wanted(args.falling, args.flips, frozenset(args.stock))
    console = Console()
    show: _Table | _Lines
    if console.is_terminal and not (args.json or args.lines):
        show = _Table(console, topic, wanted)
    else:
        show = _Lines(as_json=args.json)
    with Tail(reader_options(settings), topic, from_beginning=args.from_beginning) as tail, show:
        try:
            shown = _follow(tail, wanted, show, args)
        except KafkaException as error:
            raise CommandError(f"reading {topic} failed: {error.args[0].str()}") from error
    if args.count is not None and shown < args.count:
        raise CommandError(
            f"{count(shown)} of {count(args.count)} predictions came" + (f"; {tail.trouble}" if tail.trouble else ""),
            hint="does the service run, and do updates come in?",
        )
    return 0


def _follow(tail: Tail, wanted: _Wanted, show: _Table | _Lines, args: argparse.Namespace) -> int:
    """Show predictions until the count, the time or the end is reached; how many were shown."""
    shown, told = 0, ""
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    while args.count is None or shown < args.count:
        left = _REDRAW_EVERY if deadline is None else deadline - time.monotonic()
        if left <= 0:
            break
        for message in tail.read(max(0.0, min(left, _REDRAW_EVERY))):
            if args.count is not None and shown >= args.count:
                break
            shown += _take(message, wanted, show)
        if tail.trouble != told:
            told = tail.trouble
            show.trouble(told)
        show.refresh()
        if args.until_end and tail.at_end:
            break
    return shown


def _take(message: Message, wanted: _Wanted, show: _Table | _Lines) -> bool:
    """Show one record, if it is wanted; whether it was."""
    value = message.value() or b""
    try:
        prediction = json.loads(value)
        if not isinstance(prediction, dict) or not isinstance(prediction["stock"], str):
            raise TypeError("not an object with a stock")
        if not wanted.follows(prediction):
            return False
        shows = wanted.shows(prediction)
        if shows or isinstance(show, _Table):
            show.add(prediction, value)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        show.stranger(f"partition {message.partition()} offset {message.offset()} is no prediction: {plain(error)!r}")
        return False
    return shows


class _Lines:
    """One line each, for pipes and files."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def add(self, prediction: Mapping[str, Any], value: bytes) -> None:
        """Print it; JSON as it stands in the record, where only blanks can be line ends."""
        text = value.decode().replace("\r", " ").replace("\n", " ") if self._as_json else prediction_line(prediction)
        sys.stdout.write(text + "\n")

    def trouble(self, text: str) -> None:
        print(f"waiting: {text}" if text else "the broker answers again", file=sys.stderr)

    def stranger(self, text: str) -> None:
        print(f"skipped: {text}", file=sys.stderr)

    def refresh(self) -> None:
        sys.stdout.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()


class _Table:
    """The last prediction of each stock, redrawn in place."""

    def __init__(self, console: Console, topic: str, wanted: _Wanted) -> None:
        self._console, self._wanted = console, wanted
        self._title = f"{topic} · Ctrl-C ends"
        self._board = Board()
        self._strangers, self._trouble = 0, ""
        self._drawn = 0.0
        self._live = Live(self._draw(), console=console, auto_refresh=False)

    def add(self, prediction: Mapping[str, Any], value: bytes) -> None:  # noqa: ARG002 - what lines take
        self._board.add(prediction)

    def trouble(self, text: str) -> None:
        self._trouble = text

    def stranger(self, text: str) -> None:  # noqa: ARG002 - counted: lines would tear the table
        self._strangers += 1

    def refresh(self) -> None:
        """Redraw, a few times a second at most."""
        if time.monotonic() - self._drawn >= _REDRAW_EVERY:
            self._drawn = time.monotonic()
            self._live.update(self._draw(), refresh=True)

    def _draw(self) -> RenderableType:
        rows, columns = max(1, self._console.height - 8), self._console.width
        table = self._board.table(rows, title=self._title, columns=columns, only_falling=self._wanted.falling)
        notes = []
        if self._trouble:
            notes.append(Text(f"waiting: {self._trouble}", "yellow"))
        if self._strangers:
            notes.append(Text(f"skipped because they are no predictions: {count(self._strangers)}", "yellow"))
        if not self._board.predictions:
            notes.append(Text("no prediction yet", "dim"))
        return Group(table, *notes)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(self._draw())
        self._live.stop()
