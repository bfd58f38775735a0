"""`downtick predict`: what the service would say of a table, without Kafka and Redis."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Shown
from rich.text import Text

from consumer.arguments import check_outside
from consumer.cli_errors import CommandError
from consumer.predictionfile import SUFFIXES, CannotWrite, writing
from consumer.rendering import count, number, plain, sparkline

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from consumer.predictionfile import Rows
    from model.bundle import Bundle
    from model.dataset import Table
    from model.predictor import Predictor

DESCRIPTION = """\
Score a table of prices with a model bundle: the flag, its probability, the forecast and its interval, computed by the
very code that the service runs, with no Kafka and no Redis.

Files are what `downtick train` reads: CSV (.gz too) or Parquet, long (stock, date, value) or wide (a column for each
step), several of one layout, or folders of them. Every step of a stock is predicted that has as many values behind it
as the model needs, oldest first, so that flags have the hysteresis that they have in the service.

Without --out a table shows the newest step of each stock. With it, all steps go to a file, by its suffix:
  .csv       a row for each step; `falling` and `flipped` are true or false
  .json      an object on each line
  .parquet   needs pip install 'downtick[training]'; numbers keep every bit, `ts` is a timestamp
The fields are those of the output topic (stock, ts, value, falling, falling_probability, flipped, forecast,
forecast_low, forecast_high, window, model), and `next`: the value that came, where the files hold it. `ts` is written
as the files write it. A file that is there already is replaced, once the new one is complete.

examples:
  downtick predict models/mine prices.csv
  downtick predict models/mine model/data/seed.csv           a wide table: its forecast is of the column after the flag
  downtick predict models/mine prices/ --out scored.parquet
  downtick predict models/mine prices.csv --out scored.json && jq -c 'select(.flipped)' scored.json"""

_LISTED = 20  # stocks that are left out, by name
_WIDE = 160  # columns of what is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the bundle, the files and where the predictions go."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle, or a folder of versions")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="CSV or Parquet, or a folder of them")
    parser.add_argument("--out", type=Path, metavar="F", help="every step, to a .csv, .json or .parquet file")
    parser.add_argument("--value", metavar="COLUMN", help="the value's column in a long file")


def run(args: argparse.Namespace) -> int:
    """Read, score, write or show."""
    from model.bundle import BadBundle  # noqa: PLC0415 - pydantic; --help must not wait
    from model.sheet import BadTable  # noqa: PLC0415 - as above

    try:
        if args.out is not None:
            _check_place(args.out, args.files)
        # What is wrong with the files is told before TensorFlow takes its seconds.
        content, table = _read(args)
        from model.predictor import Predictor  # noqa: PLC0415 - as above

        predictor = Predictor(content)
        if args.out is None:
            _show(predictor, table)
        else:
            _write(predictor, table, args.out)
    except (BadBundle, BadTable, CannotWrite) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or args.out}: {error.strerror or error}") from error
    return 0


def _check_place(out: Path, files: list[Path]) -> None:
    """The file must not take the place of what is read, nor be read the next time."""
    if out.suffix.lower() not in SUFFIXES:
        raise CommandError(f"--out {out}: the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}", code=2)
    for path in files:
        if out.resolve() == path.resolve():
            raise CommandError(f"--out {out}: is one of the files to be read", code=2)
        if path.is_dir() and out.resolve().parent == path.resolve() and out.suffix.lower() != ".json":
            raise CommandError(f"--out {out}: would be read as a table the next time; name another folder", code=2)


def _read(args: argparse.Namespace) -> tuple[Bundle, Table]:
    """The bundle, and the series that it can say something of; the others are listed."""
    from model import bundle, dataset, versions  # noqa: PLC0415 - as above
    from model.sheet import BadTable, MissingColumn, normal  # noqa: PLC0415 - as above

    content = bundle.load(versions.resolve(args.bundle))
    if args.out is not None:
        check_outside(args.out, content.path)
    manifest = content.manifest
    fields = manifest.inputs.fields
    try:
        table = dataset.read(args.files, value=args.value, fields=fields)
    except BadTable as error:
        needs = (
            f"the model needs the columns {', '.join(fields)} beside the value"
            if isinstance(error, MissingColumn)
            else ""
        )
        raise CommandError(str(error), hint=needs) from error
    _note(f"{table.skipped:,} of {table.rows:,} rows have no value: left out" if table.skipped else "")
    learned = manifest.data.value
    if not table.steps and normal(learned) not in {*dataset.VALUE, "steps", normal(table.value)}:
        _note(f"the model learned from the column {learned!r}, here it is {table.value!r}: --value names another one")
    usable, lines = dataset.usable(table, manifest.min_history, moving=False)
    for line in lines[:_LISTED]:
        _note(line)
    _note(f"... and {len(lines) - _LISTED:,} more stocks" if len(lines) > _LISTED else "")
    return content, usable


def _note(line: str) -> None:
    if line:
        print(line, file=sys.stderr)


def _note_failed(failed: int) -> None:
    _note(f"{failed:,} windows for which the model gave no finite numbers are left out" if failed else "")


def _write(predictor: Predictor, table: Table, out: Path) -> None:
    from consumer.offline import rows, score  # noqa: PLC0415 - as above

    written = failed = 0
    with _bar(_steps(predictor, table)) as progress, writing(out) as writer:
        for scored in score(predictor, table.series):
            if len(scored.stock):
                writer.write(rows(predictor, table, scored))
            written, failed = written + len(scored.stock), failed + scored.failed
            progress(len(scored.stock) + scored.failed)
    _note_failed(failed)
    print(f"{out}: {written:,} predictions of {len(table.series):,} stocks by {predictor.version}")


def _show(predictor: Predictor, table: Table) -> None:
    from consumer.offline import newest, rows, score  # noqa: PLC0415 - as above

    parts = []
    with _bar(_steps(predictor, table)) as progress:
        for scored in score(predictor, table.series):
            parts.append(newest([scored]))
            progress(len(scored.stock) + scored.failed)
    found = newest(parts)
    _note_failed(found.failed)
    if not len(found.stock):
        raise CommandError("the model gave no finite numbers for any window")
    console = Console()
    console = console if console.is_terminal else Console(width=_WIDE)
    said = rows(predictor, table, found)
    histories = [
        table.series[n].values[: step + 1, 0][-24:].tolist() for n, step in zip(found.stock, found.step, strict=True)
    ]
    bars = max(4, min(24, console.width - 85))
    console.print(_table(said, table, [sparkline(h, bars) for h in histories], predictor.manifest.interval.level))
    console.print(
        f"{count(len(said.stock))} stocks, {count(int(said.falling.sum()))} falling, model {predictor.version}",
        style="dim",
        highlight=False,
    )


def _table(said: Rows, table: Table, histories: Sequence[str], level: float) -> Shown:
    """A row for each stock: its newest step, what is said of it, and what came, where any is known."""
    came = bool(np.isfinite(said.next).any())
    shown = Shown(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("stock", no_wrap=True)
    if not table.steps:
        shown.add_column("time", no_wrap=True)
    # In a wide table all stocks end at one step, whose name says more than "value".
    shown.add_column(plain(table.steps[-1]) if table.steps else "value", justify="right", no_wrap=True)
    shown.add_column("history", no_wrap=True)
    shown.add_column("falling", no_wrap=True)
    shown.add_column("P", justify="right", no_wrap=True)
    ahead = plain(table.next_name or "next")
    shown.add_column(f"{ahead} forecast" if table.next_name else "forecast", justify="right", no_wrap=True)
    shown.add_column(f"{level:.0%} interval", justify="center", no_wrap=True)
    if came:
        shown.add_column(f"{ahead} true", justify="right", no_wrap=True)
    for i, stock in enumerate(said.stock):
        falling, value, forecast = bool(said.falling[i]), float(said.value[i]), float(said.forecast[i])
        flag = Text("▼ yes" if falling else "-", "bold red" if falling else "dim")
        if said.flipped[i]:
            flag.append(" ⇄", "bold yellow")
        shown.add_row(
            Text(plain(stock), "bold"),
            *([] if table.steps else [Text(said.ts[i], "dim")]),
            number(value),
            Text(histories[i], "red" if falling else "cyan"),
            flag,
            f"{float(said.falling_probability[i]):.3f}",
            Text(number(forecast), "green" if forecast > value else "red" if forecast < value else ""),
            Text(f"{number(float(said.forecast_low[i]))} … {number(float(said.forecast_high[i]))}", "dim"),
            *([number(float(said.next[i]))] if came else []),
        )
    return shown


def _steps(predictor: Predictor, table: Table) -> int:
    """How many windows there are to be scored."""
    return sum(len(one.times) - predictor.min_history + 1 for one in table.series)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere; what is yielded takes how many more are done."""
    console = Console(stderr=True)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)
