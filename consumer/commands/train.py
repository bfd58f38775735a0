"""`downtick train`: a model bundle from a price file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.dataset import Table
    from model.manifest import Manifest, Metrics

DESCRIPTION = """\
Train a model on a CSV of prices and write it as a bundle: a folder that `downtick run --model.path DIR` serves.

Long files have a row for each value:          Wide files have a row for each stock:
  stock,date,close,volume                        stock,2010,2011,2012,2013,2014,falling,2015
  AAPL,2026-11-23,189.98,1200                    bar,50,100,100,50,25,1,10
The stock's column may also be called ticker or symbol; the time's ts, timestamp, time or datetime; the value's value,
adj_close or price. .gz is understood; several files of one layout make one table.

The network sees windows of --window steps and learns two answers: is the stock falling, and what comes next.
  --label given    `falling` is a column of the file (falling or label: 0, 1, or empty where it is not known)
  --label regime   `falling` is a rule: the slope of the log value over the 17 steps around a step, 8 of them later
                   ones, is below -0.05 of the mean absolute step. The network must tell without the later ones.

The file is split by time. The oldest 60 % train; the next 20 % choose when to stop, calibration, thresholds and the
90 % interval; the newest 20 % choose nothing and are what the printed scores are of. Answers that reach over a border
are left out. Too few steps for that: everything trains, nothing is held out, and the bundle says so.

examples:
  downtick train prices.csv.gz --out models/mine
  downtick train prices.csv --label regime --window 64 --fields volume --out models/wide
  downtick train prices.csv --validation-from 2015-01-01 --test-from 2016-01-01 --out models/mine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `downtick train`."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="CSV, long or wide, .gz or not")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the bundle; replaces one there"
    )
    parser.add_argument(
        "--window", type=_at_least(2), default=32, metavar="N", help="steps the network sees (default: 32)"
    )
    parser.add_argument(
        "--label",
        choices=("given", "regime"),
        help="where `falling` comes from (default: given if the file has such a column, else regime)",
    )
    parser.add_argument(
        "--seed", type=_at_least(0), default=1, metavar="N", help="same seed, same weights (default: 1)"
    )
    parser.add_argument("--value", metavar="COLUMN", help="the value's column in a long file")
    parser.add_argument(
        "--fields", type=_names, default=(), metavar="A,B", help="columns of a long file as extra inputs, by name"
    )
    parser.add_argument("--validation-from", metavar="TIME", help="first step that does not train (a date, or a step)")
    parser.add_argument("--test-from", metavar="TIME", help="first step that chooses nothing either")
    parser.add_argument(
        "--look-ahead",
        type=_at_least(1),
        metavar="N",
        help="with --label given: steps after a row that its label was made of, left out before borders (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Read, train, write, tell how good it is."""
    # TensorFlow takes seconds to import: not for --help, nor for a file that cannot be read.
    from model import dataset  # noqa: PLC0415
    from model.sheet import BadTable  # noqa: PLC0415

    if (args.validation_from is None) != (args.test_from is None):
        raise CommandError("--validation-from and --test-from go together", code=2)
    try:
        table = dataset.read(args.files, value=args.value, fields=args.fields)
        label = args.label or ("given" if table.labelled else "regime")
        if args.look_ahead and label != "given":
            raise CommandError("--look-ahead is for --label given: the rule's own is known", code=2)
        borders = None
        if args.test_from is not None:
            borders = table.time_of(args.validation_from), table.time_of(args.test_from)
            if borders[0] >= borders[1]:
                raise CommandError("--test-from must be later than --validation-from", code=2)
    except BadTable as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    _train(args, table, label, borders)
    return 0


def _train(args: argparse.Namespace, table: Table, label: str, borders: tuple[int, int] | None) -> None:
    from model import train  # noqa: PLC0415 - as above
    from model.bundle import BadBundle  # noqa: PLC0415 - as above

    if table.skipped:
        print(f"{table.skipped:,} of {table.rows:,} rows have no value: left out")
    recipe = train.Recipe(
        "regime" if label == "regime" else "given",
        window=args.window,
        seed=args.seed,
        borders=borders,
        look_ahead=args.look_ahead,
        fields=args.fields,
    )
    try:
        manifest = train.train(table, recipe, args.out, lambda line: print(line, flush=True))
    except (train.CannotTrain, BadBundle) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or args.out}: {error.strerror}") from error
    print("\n".join(["", *summary(manifest), "", f"{args.out}: bundle {manifest.version}"]))
    print(f"serve it: downtick run --model.path {args.out}")


def summary(manifest: Manifest) -> list[str]:
    """What the bundle is good for, in a few lines."""
    found = manifest.metrics
    scores = found.test or found.train
    what = "test" if found.test else "the data it was trained on, which says nothing about new data"
    lines = [f"{what}: {scores.examples:,} windows, {scores.first} to {scores.last}"]
    if scores.labelled:
        lines.append(f"  falling    {_falling(scores)}")
    if scores.mae is not None and scores.naive_mae is not None:
        # Stocks move together: a difference below one percent is nothing to speak of.
        verdict = "better than" if scores.mae < 0.99 * scores.naive_mae else "no better than"
        lines.append(
            f"  forecast   mean error {scores.mae:.4f} of the window's scale, {verdict} 'no change' "
            f"({scores.naive_mae:.4f}); the {manifest.interval.level:.0%} interval holds {scores.coverage or 0:.1%}"
        )
    return lines


def _falling(scores: Metrics) -> str:
    parts = []
    if scores.auc is not None:
        slope = "" if scores.slope_auc is None else f" (slope of the last 8 steps: {scores.slope_auc:.3f})"
        parts.append(f"AUC {scores.auc:.3f}{slope}")
    if scores.brier is not None and scores.base_brier is not None:
        parts.append(f"Brier {scores.brier:.3f} (always the base rate: {scores.base_brier:.3f})")
    if scores.mcc is not None:
        parts.append(f"flag MCC {scores.mcc:.3f}, {scores.flips_per_1000 or 0:.0f} flips per 1,000 steps")
    return "; ".join(parts)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {least}")
        return int(text)

    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
