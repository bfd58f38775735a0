"""`downtick replay`: a price file, sent to the input topic in the order in which it happened."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, Message, Producer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from consumer.arguments import positive, whole
from consumer.cli_errors import CommandError
from consumer.kafka_options import plain_producer_options
from consumer.pricefile import BadPriceFile, Prices, parse_time, read_prices
from consumer.rendering import count, duration, timestamp
from consumer.topics import Trouble, partitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumer.settings import Settings

DESCRIPTION = """\
Send a CSV of values to the input topic: keyed by stock, ordered by time, each value exactly once.

Long files have a row for each value:          Wide files have a row for each stock:
  stock,ts,value                                 stock,2010,2011,2012
  AAPL,2026-11-23T14:30:00Z,189.98               foo,100,200,250
The stock's column may also be called ticker or symbol; the time's timestamp, time, datetime or date; the value's
adj_close, close or price. A `falling` or `label` column is left out. Times are years, dates, ISO 8601 (UTC without
an offset) or epoch milliseconds. .gz is understood, and - is standard input.

examples:
  downtick replay prices.csv                              as fast as the broker takes it
  downtick replay prices.csv.gz --rate 1000               1,000 updates a second
  downtick replay ticks.csv --speed 60                    an hour of the file in a minute
  downtick replay daily.csv --stocks AAPL,IBM --value close --fields volume
  downtick replay steps.csv --start 2026-01-01 --step 1d  a wide file whose columns are no times
  downtick replay daily.csv --loop --rate 100             again and again, until stopped
  downtick replay prices.csv --dry-run | head             see the events, send nothing

A second replay of the same file adds nothing: its updates are older than the last one of their stock, so the service
sends them to the dead letters as late. With --loop each update therefore carries the time at which it is sent instead
of the file's; --rate or --speed sets the pace, and a round begins as soon as the one before has ended. The exit code
is 1 when an update was not delivered, 130 after Ctrl-C; 0 under --loop, which has no other end than to be stopped."""

SETTINGS = ("kafka", "events.max_ahead")

_STEP = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|h|d|w)?")
_STEP_MS = {"ms": 1, None: 1000, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_FLUSH_WITHIN = 10.0  # seconds, after Ctrl-C


@dataclass
class Sent:
    """What became of the updates. Those neither delivered nor failed were never sent, or their fate is unknown."""

    delivered: int = 0
    failed: int = 0
    first_error: str = ""
    unknown: int = 0

    def on_delivery(self, error: KafkaError | None, message: Message) -> None:
        """Count one delivery report."""
        if error is None:
            self.delivered += 1
            return
        self.failed += 1
        self.first_error = self.first_error or f"{(message.key() or b'?').decode(errors='replace')}: {error.str()}"


def replay(
    prices: Prices,
    producer: Producer,
    topic: str,
    *,
    rate: float | None = None,
    speed: float | None = None,
    loop: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Sent:
    """Produce every value in order; blocks until all are delivered, one failed, or `stopped()`.

    The first failure ends it: what follows would leave a hole in a stock's history.

    Args:
        producer: idempotent, with the partitioner murmur2_random.
        rate: updates a second; None for as many as the broker takes.
        speed: seconds of the file's time in one second; not together with `rate`.
        loop: begin again after the last value, until `stopped()`; each value carries the time at which it is sent.
        progress: called about ten times a second with the number delivered."""
    started = time.monotonic()
    outbox = _Outbox(producer, topic, progress, stopped)
    for n, (key, since, message) in enumerate(_paced(prices, rate, speed, loop=loop)):
        if not (outbox.wait_until(started + since) and outbox.send(key, message())):
            break
        if n % 1000 == 0:
            outbox.serve(0)
    outbox.flush()
    return outbox.sent


def _paced(
    prices: Prices, rate: float | None, speed: float | None, *, loop: bool
) -> Iterator[tuple[str, float, Callable[[], bytes]]]:
    """Each update's key, when it is due in seconds since the start, and what gives its JSON then."""
    first_ms, last_ms = (int(prices.ts_ms[0]), int(prices.ts_ms[-1])) if len(prices) else (0, 0)
    rounds = itertools.count() if loop and len(prices) else range(1)
    for turn in rounds:
        for n, (key, ts_ms, message) in enumerate(prices.templates(), start=turn * len(prices)):
            file_ms = turn * (last_ms - first_ms) + ts_ms - first_ms
            since = n / rate if rate else file_ms / 1000 / speed if speed else 0.0
            yield key, since, partial(_stamped, message) if loop else partial(message, ts_ms)


def _stamped(message: Callable[[int], bytes]) -> bytes:
    return message(time.time_ns() // 1_000_000)


class _Outbox:
    """The producer, its delivery reports, and whether it is time to stop."""

    def __init__(
        self, producer: Producer, topic: str, progress: Callable[[int], None], stopped: Callable[[], bool]
    ) -> None:
        self._producer, self._topic, self._progress, self._stopped = producer, topic, progress, stopped
        self._shown = time.monotonic()
        self.sent = Sent()

    def ended(self) -> bool:
        return bool(self.sent.failed) or self._stopped()

    def serve(self, seconds: float) -> None:
        """Take delivery reports, for at most a tenth of a second: signals wait until librdkafka returns."""
        self._producer.poll(max(0.0, min(seconds, 0.1)))
        if time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._progress(self.sent.delivered)

    def wait_until(self, due: float) -> bool:
        """Whether the time came before the end did."""
        # librdkafka waits in whole milliseconds: closer than that, updates leave in small bursts.
        while not self.ended() and (wait := due - time.monotonic()) > 0.002:
            self.serve(wait)
        return not self.ended()

    def send(self, key: str, value: bytes) -> bool:
        """Hand it to librdkafka, when it has room; whether it did."""
        while not self.ended():
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self.sent.on_delivery)
            except BufferError:
                self.serve(0.1)
            else:
                return True
        return False

    def flush(self) -> None:
        """Wait for the reports of all that was handed over; not for long, once it has ended."""
        if self.sent.failed:
            self._producer.purge(in_queue=True, in_flight=False)
        patience = None
        while len(self._producer):
            self.serve(0.1)
            if self.ended():
                patience = patience or time.monotonic() + _FLUSH_WITHIN
                if time.monotonic() > patience:
                    break
        self.sent.unknown = len(self._producer)
        self._progress(self.sent.delivered)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file, what is taken of it, and how fast it is sent."""
    parser.add_argument("file", metavar="FILE", help="CSV, long or wide, .gz or not; - is standard input")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=positive, metavar="N", help="updates a second")
    pace.add_argument("--speed", type=positive, metavar="X", help="the file's time, X times as fast as it happened")
    parser.add_argument("--loop", action="store_true", help="again and again, each update at the time of its sending")
    parser.add_argument("--topic", metavar="T", help="send it there instead of the input topic")
    parser.add_argument("--stocks", metavar="A,B", help="only these")
    parser.add_argument("--limit", type=whole, metavar="N", help="only the earliest N updates")
    parser.add_argument("--value", metavar="COLUMN", help="column of the values in a long file")
    parser.add_argument("--fields", metavar="A,B", help="columns of a long file that go with each value")
    parser.add_argument("--start", type=_time, metavar="T", help="time of a wide file's first column")
    parser.add_argument("--step", type=_step, metavar="D", help="time between its columns: 1d, 2h, 15min, 10s, 500ms")
    parser.add_argument(
        "--timeout",
        type=positive,
        metavar="S",
        default=30.0,
        help="give up on an update after S seconds (default: 30)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the events instead of sending them")


def run(args: argparse.Namespace) -> int:
    """Read the file, send it, and say what became of it."""
    settings: Settings = args.settings
    if args.loop and args.dry_run:
        raise CommandError("--dry-run would print without end", hint="leave --loop out: it repeats the same", code=2)
    if args.loop and not (args.rate or args.speed):
        raise CommandError("--loop needs a pace", hint="as in --loop --rate 100: unpaced it fills the disk", code=2)
    prices = _prices(args)
    if args.loop and args.speed and prices.ts_ms[0] == prices.ts_ms[-1]:
        raise CommandError("--loop --speed needs a file with more than one time", hint="use --rate", code=2)
    if args.dry_run:
        for _, _, value in prices.messages():
            sys.stdout.write(value.decode() + "\n")
        return 0
    _warn(prices, settings, loop=args.loop)
    trouble = Trouble()
    options = {**plain_producer_options(settings), "message.timeout.ms": str(round(args.timeout * 1000))}
    producer = Producer(trouble.options(options))
    topic = args.topic or settings.kafka.input_topic
    partitions(producer, topic, servers=settings.kafka.bootstrap_servers, trouble=trouble)
    started = time.monotonic()
    total = None if args.loop else len(prices)
    pace = {"rate": args.rate, "speed": args.speed, "loop": args.loop}
    with _signals() as stopped, _bar(total) as progress:
        sent = replay(prices, producer, topic, **pace, progress=progress, stopped=stopped)
        interrupted = stopped()
    return _report(total, sent, topic, time.monotonic() - started, interrupted=interrupted, trouble=trouble)


def _prices(args: argparse.Namespace) -> Prices:
    if (args.start is None) != (args.step is None):
        raise CommandError("--start and --step belong together", hint="as in --start 2026-01-01 --step 1d", code=2)
    try:
        prices = read_prices(
            args.file, value=args.value, fields=_list(args.fields), start_ms=args.start, step_ms=args.step
        )
    except BadPriceFile as error:
        raise CommandError(str(error), hint="downtick replay --help shows what a file looks like") from error
    if args.stocks:
        try:
            prices = prices.only(_list(args.stocks))
        except KeyError as error:
            name = str(error.args[0])
            nearest = difflib.get_close_matches(name, prices.stocks, n=5, cutoff=0.4) or prices.stocks[:10]
            raise CommandError(f"{args.file} has no stock {name!r}", hint=f"it has {', '.join(nearest)}") from error
    return prices if args.limit is None else prices.first(args.limit)


def _warn(prices: Prices, settings: Settings, *, loop: bool) -> None:
    if prices.skipped:
        print(f"{count(prices.skipped)} rows or cells without a value are left out", file=sys.stderr)
    if loop:
        return  # the file's own times are not sent
    ahead = time.time() + settings.events.max_ahead
    late = int((prices.ts_ms > ahead * 1000).sum())
    if late:
        print(
            f"warning: {count(late)} updates lie more than events.max_ahead ({duration(settings.events.max_ahead)}) in "
            f"the future, up to {timestamp(int(prices.ts_ms[-1]))}: the service will refuse them",
            file=sys.stderr,
        )


def _report(total: int | None, sent: Sent, topic: str, took: float, *, interrupted: bool, trouble: Trouble) -> int:
    rate = round(sent.delivered / took) if took > 0 else 0
    cut = interrupted and total not in {None, sent.delivered}
    amount = f"{count(sent.delivered)} of {count(total)}" if total and sent.delivered < total else count(sent.delivered)
    line = f"sent {amount} updates to {topic} in {duration(took)} ({count(rate)}/s)"
    if sent.failed or sent.unknown:
        cause = "; ".join(text for text in (sent.first_error, trouble.text) if text)
        unknown = f", {count(sent.unknown)} without an answer" if sent.unknown else ""
        raise CommandError(
            f"{line}; {count(sent.failed)} failed{unknown} ({cause})",
            hint="it stopped there; once the cause is gone, the file can be sent again: what has arrived already will "
            "count as late or as a duplicate",
            code=130 if cut and not sent.failed else 1,
        )
    print(f"stopped: {line}" if cut or total is None else line)
    return 130 if cut else 0


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask to stop, so that what was sent can be counted; the second one ends at once."""
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; elsewhere a line every ten seconds. Without a total there is no end to show."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda delivered: progress.update(task, completed=delivered)
        return
    shown = time.monotonic()

    def line(delivered: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 10:
            shown = time.monotonic()
            print(f"{count(delivered)}{'' if total is None else f' of {count(total)}'} sent", file=sys.stderr)

    yield line


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _time(text: str) -> int:
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a date or an RFC 3339 time, not {text!r}") from None


def _step(text: str) -> int:
    match = _STEP.fullmatch(text)
    step = round(float(match[1]) * _STEP_MS[match[2]]) if match else 0
    if step < 1:
        raise argparse.ArgumentTypeError(f"expected a duration as 1d, 2h, 15min, 10s or 500ms, not {text!r}")
    return step
