"""`downtick train`: a model bundle from a price file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from consumer.arguments import between, fraction, inside, names, seed, whole
from consumer.cli_errors import CommandError
from consumer.fitting import Fitting

if TYPE_CHECKING:
    import argparse

    from model.dataset import Table
    from model.labels import Rule
    from model.manifest import Manifest, Metrics

DESCRIPTION = """\
Train a model on prices and write it as a bundle: a folder that `downtick run --model.path DIR` serves.

Long files have a row for each value:          Wide files have a row for each stock:
  stock,date,close,volume                        stock,2010,2011,2012,2013,2014,falling,2015
  AAPL,2026-11-23,189.98,1200                    bar,50,100,100,50,25,1,10
The stock's column may also be called ticker or symbol; the time's ts, timestamp, time or datetime; the value's value,
adj_close or price. CSV (.gz too) and Parquet; several files, or a folder of them, of one layout make one table.

The network sees windows of --window steps and learns two answers: is the stock falling, and what comes next.
  --label given    `falling` is a column of the file (falling or label: 0, 1, or empty where it is not known)
  --label regime   `falling` is a rule: the slope of the log value over the 17 steps around a step, 8 of them later
                   ones, is below -0.05 of the mean absolute step. The network must tell without the later ones.
  --label drop     `falling` is a rule: the next change is -THRESHOLD or less

The file is split by time, with one window left out before each border. The oldest 60 % train; the next 20 % choose
when to stop, calibration, thresholds and the 90 % interval; the newest 20 % choose nothing and are what the printed
scores are of. A table of many stocks and few steps is split by stock instead. Too little for both: everything trains,
nothing is held out, and the bundle says so. Ctrl-C ends training early and keeps the best network so far.

examples:
  downtick train prices.csv.gz --out models/mine
  downtick train prices/ --label drop --threshold 0.01 --channels value,value.volatility8,volume --out models/drop
  downtick train prices.parquet --validation-from 2015-01-01 --test-from 2016-01-01 --out models/mine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `downtick train`."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="CSV or Parquet, or a folder of them")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the bundle; replaces one there"
    )
    _add_task(parser.add_argument_group("what is learnt"))
    _add_fit(parser.add_argument_group("how"))


def _add_task(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--label",
        choices=("given", "regime", "drop"),
        help="what `falling` means (default: given if the file has such a column, else regime)",
    )
    group.add_argument(
        "--threshold", type=fraction, metavar="F", help="with --label drop: 0.005 is half a percent (default: 0.005)"
    )
    group.add_argument(
        "--dead-zone",
        type=inside(-1, 1),
        metavar="F",
        help="with --label drop: next changes between -THRESHOLD and F are neither falling nor not (default: none)",
    )
    group.add_argument(
        "--look-ahead",
        type=between(1, 1_000_000),
        metavar="N",
        help="with --label given: steps after a row that its label was made of, left out before borders (default: 1)",
    )
    group.add_argument(
        "--window", type=between(2), default=32, metavar="N", help="steps the network sees (default: 32)"
    )
    group.add_argument(
        "--channels",
        type=names,
        default=("value",),
        metavar="A,B",
        help="what it sees of each: value, value.change, value.return, value.mean5, value.volatility8, and columns of "
        "a long file by name, with the same endings (default: value)",
    )
    group.add_argument("--value", metavar="COLUMN", help="the value's column in a long file")


def _add_fit(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--network", choices=("lstm", "dense"), default="lstm", help="LSTM(32), or dense 100-100 (default: lstm)"
    )
    group.add_argument(
        "--units", type=between(1, 1024), metavar="N", help="width of the LSTM (default: 32) or of a dense layer (100)"
    )
    group.add_argument(
        "--members",
        type=between(1, 16),
        default=1,
        metavar="N",
        help="networks from N seeds, averaged; N times the work, here and in the service (default: 1)",
    )
    group.add_argument("--seed", type=seed, default=1, metavar="N", help="same seed, same weights (default: 1)")
    group.add_argument("--epochs", type=whole, metavar="N", help="at most so many (default: 30)")
    group.add_argument("--learning-rate", type=fraction, default=0.001, metavar="F", help="of Adam (default: 0.001)")
    group.add_argument(
        "--precision",
        type=fraction,
        default=0.7,
        metavar="F",
        help="share of flagged steps that should be falling: thresholds are chosen for it (default: 0.7)",
    )
    group.add_argument("--validation-from", metavar="TIME", help="first step that does not train (a date, or a step)")
    group.add_argument("--test-from", metavar="TIME", help="first step that chooses nothing either")
    group.add_argument(
        "--workers", type=between(1, 64), default=1, metavar="N", help="processes that train together (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Read, train, write, tell how good it is."""
    # TensorFlow takes seconds to import: not for --help, nor for a file that cannot be read.
    from model import dataset  # noqa: PLC0415
    from model.inputs import Inputs  # noqa: PLC0415
    from model.sheet import BadTable, MissingColumn  # noqa: PLC0415

    _check(args, args.label)
    if (args.validation_from is None) != (args.test_from is None):
        raise CommandError("--validation-from and --test-from go together", code=2)
    try:
        fields = Inputs(args.window, args.channels).fields
    except ValueError as error:
        raise CommandError(str(error), code=2) from error
    try:
        table = dataset.read(args.files, value=args.value, fields=fields)
        label: Rule = args.label or ("given" if table.labelled else "regime")
        _check(args, label)  # which the file had to tell
        borders = None
        if args.test_from is not None:
            borders = table.time_of(args.validation_from), table.time_of(args.test_from)
            if borders[0] >= borders[1]:
                raise CommandError("--test-from must be later than --validation-from", code=2)
    except BadTable as error:
        needs = (
            f"--channels asks for the columns {', '.join(fields)} beside the value"
            if isinstance(error, MissingColumn)
            else ""
        )
        raise CommandError(str(error), hint=needs) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    _train(args, table, label, borders)
    return 0


def _check(args: argparse.Namespace, label: Rule | None) -> None:
    """Options that belong to another rule would be passed over silently otherwise. Without a label it is one of two."""
    from model.train import DROP  # noqa: PLC0415 - as above

    possible = (label,) if label else ("given", "regime")
    for option, rule in (("look_ahead", "given"), ("threshold", "drop"), ("dead_zone", "drop")):
        if getattr(args, option) is not None and rule not in possible:
            name = option.replace("_", "-")
            raise CommandError(f"--{name} is for --label {rule}; here it is {' or '.join(possible)}", code=2)
    least = -(DROP if args.threshold is None else args.threshold)
    if args.dead_zone is not None and args.dead_zone <= least:
        raise CommandError(f"--dead-zone must be above {least:g}, where falling begins (--threshold)", code=2)


def _train(args: argparse.Namespace, table: Table, label: Rule, borders: tuple[int, int] | None) -> None:
    from model import train  # noqa: PLC0415 - as above
    from model.bundle import BadBundle  # noqa: PLC0415 - as above
    from model.manifest import Architecture  # noqa: PLC0415 - as above
    from model.sheet import BadTable  # noqa: PLC0415 - as above

    if table.skipped:
        print(f"{table.skipped:,} of {table.rows:,} rows have no value: left out")
    units = {} if args.units is None else {"units": args.units}
    try:
        recipe = train.Recipe(
            label,
            window=args.window,
            channels=args.channels,
            architecture=Architecture(kind=args.network, members=args.members, **units),
            threshold=train.DROP if args.threshold is None else args.threshold,
            dead_zone=args.dead_zone,
            look_ahead=args.look_ahead,
            borders=borders,
            precision=args.precision,
            seed=args.seed,
            epochs=args.epochs,
            learning_rate=args.learning_rate,
            workers=args.workers,
        )
        with Fitting() as fitting:
            manifest = train.train(table, recipe, args.out, fitting.line, fitting.show)
    except (train.CannotTrain, BadBundle, BadTable) as error:
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
