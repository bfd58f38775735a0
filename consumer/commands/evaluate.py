"""`downtick evaluate`: how good a bundle is against its baselines, as a report."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from consumer.arguments import between, check_outside, seed
from consumer.cli_errors import CommandError
from consumer.rendering import plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from model.bundle import Bundle
    from model.dataset import Table
    from model.measured import Measured

DESCRIPTION = """\
Measure a model bundle on a table of prices, against the baselines that it must beat to be worth running, and write one
HTML file with tables and plots (no script, nothing loaded from anywhere) and the same numbers as JSON beside it.

Files are what `downtick train` reads: CSV (.gz too) or Parquet, long or wide, or folders of them. Scored are the rows
from the bundle's own border on (its test part), by the very code that the service runs; the rows before it train the
baselines, as they trained the bundle. A file that lies wholly behind the border has nothing to train them on, and a
bundle that held nothing out is scored on all rows: the report says so.

  flag       ROC-AUC, PR-AUC, MCC, Brier, log loss and calibration against: always the majority, the trailing slope,
             logistic regression, LightGBM, the dense 100-100-1; for `regime`, how much earlier it is than the slope
  forecast   MAE, RMSE, MASE and Diebold-Mariano against: the last value, drift, AutoETS, AutoTheta
  interval   coverage, width and pinball loss against: constant quantiles, EWMA volatility

Every number has a 95 % interval from a bootstrap over days, differences are paired. The first line printed says whether
the bundle beats every baseline: it does where the interval of the difference excludes 0. The exit code is 0 either way.
Takes about a minute for 88 stocks of 1,250 days. Needs pip install 'downtick[training]'.

examples:
  downtick evaluate models/mine prices.csv.gz --out mine.html
  downtick evaluate models/mine new-prices/                      rows that came after the bundle was made
  downtick evaluate models/mine prices.csv --test-from 2016-07-01"""

_LISTED = 10  # stocks that are left out, by name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the bundle, the files and the report."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle, or a folder of versions")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="CSV or Parquet, or a folder of them")
    parser.add_argument(
        "--out", type=Path, metavar="F.html", help="the report; its JSON goes beside it (default: VERSION.html)"
    )
    parser.add_argument("--value", metavar="COLUMN", help="the value's column in a long file (default: the bundle's)")
    parser.add_argument(
        "--test-from", metavar="TIME", help="score from this step on, instead of from the bundle's border"
    )
    parser.add_argument(
        "--replicates", type=between(10, 100_000), default=1000, metavar="N", help="of the bootstrap (default: 1000)"
    )
    parser.add_argument("--seed", type=seed, default=1, metavar="N", help="of baselines and bootstrap (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Read, measure, write, and say what is demonstrated."""
    from model.bundle import BadBundle  # noqa: PLC0415 - pydantic; --help must not wait
    from model.extras import MissingExtra  # noqa: PLC0415 - as above
    from model.fit import CannotFit  # noqa: PLC0415 - as above
    from model.held_out import CannotEvaluate  # noqa: PLC0415 - as above
    from model.sheet import BadTable  # noqa: PLC0415 - as above

    try:
        content, table = _read(args)
        out = _place(args, content)
        found = _measure(args, content, table)
        _write(out, found)
    except (BadBundle, BadTable, CannotEvaluate, CannotFit, MissingExtra) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or args.out}: {error.strerror or error}") from error
    _summary(found)
    print(f"\n{out}: the report\n{out.with_suffix('.json')}: its numbers")
    return 0


def _read(args: argparse.Namespace) -> tuple[Bundle, Table]:
    """The bundle, and the series that it can say something of; what is wrong is told before anything slow begins."""
    from model import bundle, dataset, versions  # noqa: PLC0415 - as above
    from model.extras import require  # noqa: PLC0415 - as above
    from model.sheet import BadTable, MissingColumn, MissingValue  # noqa: PLC0415 - as above

    require()
    content = bundle.load(versions.resolve(args.bundle))
    manifest = content.manifest
    learned, fields = manifest.data.value, manifest.inputs.fields
    try:
        try:
            table = dataset.read(args.files, value=args.value or learned, fields=fields)
        except MissingValue:  # any other fault is one of the column that the bundle learned from
            if args.value:
                raise
            table = dataset.read(args.files, fields=fields)
    except BadTable as error:
        needs = (
            f"the model needs the columns {', '.join(fields)} beside the value"
            if isinstance(error, MissingColumn)
            else ""
        )
        raise CommandError(str(error), hint=needs) from error
    if table.skipped:
        _note(f"{table.skipped:,} of {table.rows:,} rows have no value: left out")
    if table.value != learned:
        _note(f"the bundle learned from {learned!r}, here it is {table.value!r}: --value names another column")
    usable, lines = dataset.usable(table, manifest.inputs.reach)
    for line in lines[:_LISTED]:
        _note(line)
    if len(lines) > _LISTED:
        _note(f"… and {len(lines) - _LISTED:,} more stocks skipped")
    return content, usable


def _place(args: argparse.Namespace, content: Bundle) -> Path:
    """Where the report goes: never where something is that was read."""
    out: Path = args.out or Path(f"{content.manifest.version}.html")
    if out.suffix.lower() not in {".html", ".htm"}:
        raise CommandError(f"--out {out}: the name must end in .html", code=2)
    taken = {path.resolve() for path in args.files}
    if taken & {out.resolve(), out.with_suffix(".json").resolve()}:
        raise CommandError(f"--out {out}: is one of the files to be read", code=2)
    check_outside(out, content.path)
    if not out.parent.is_dir():
        raise CommandError(f"--out {out}: there is no folder {out.parent}")
    return out


def _measure(args: argparse.Namespace, content: Bundle, table: Table) -> Measured:
    from model.comparison import measure  # noqa: PLC0415 - TensorFlow takes its seconds
    from model.predictor import Predictor  # noqa: PLC0415 - as above

    with _progress() as tell:
        return measure(
            Predictor(content),
            table,
            test_from=args.test_from,
            replicates=args.replicates,
            seed=args.seed,
            tell=tell,
        )


def _write(out: Path, found: Measured) -> None:
    """Both files, each whole or not at all."""
    from model.report import render  # noqa: PLC0415 - as above

    for path, text in ((out.with_suffix(".json"), found.model_dump_json(indent=2) + "\n"), (out, render(found))):
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
            fresh = Path(scratch) / path.name
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)


def _summary(found: Measured) -> None:
    from model.verdict import headline, sentences  # noqa: PLC0415 - as above

    held = found.held
    print(plain(headline(found)))
    print(plain(f"{held.rows:,} steps of {held.stocks:,} stocks, {held.first} to {held.last}"))
    for line in (*sentences(found), *found.notes):
        print(f"  {plain(line)}")


def _note(line: str) -> None:
    print(plain(line), file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, nothing elsewhere; what is yielded takes what is done, how much of it, and of how much."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of or None)
