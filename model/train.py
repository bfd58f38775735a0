"""From a table of prices to a bundle: examples, split by time, fit, choices on validation, scores on test."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model import bundle, dataset, evaluation, examples, labels, network, versions
from model.features import features
from model.fit import AVERAGING, BATCH, EPOCHS, LEARNING_RATE, PATIENCE, CannotFit, Fitted, Progress, fit
from model.inputs import Inputs
from model.manifest import (
    GOLDEN_ROWS,
    Architecture,
    Calibration,
    Data,
    Evaluation,
    Interval,
    LabelRule,
    Manifest,
    Metrics,
    Parts,
    Thresholds,
    Training,
)
from model.predictor import Predictor
from model.runtime import keras
from model.workers import fit_together

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from model.dataset import Table
    from model.examples import Examples

WINDOW = 32  # steps, when nothing else is asked for
LEVEL = 0.9  # of the interval
PRECISION = 0.7  # of the flag, when nothing else is asked for
LISTED = 20  # skipped stocks, by name
DROP = 0.005  # threshold of the rule drop, when nothing else is asked for: half a percent


class CannotTrain(Exception):
    """This data does not allow what was asked; one line that says why."""


@dataclass(frozen=True)
class Recipe:
    """How to train. `window` is a wish: with shorter series only, the longest of them decides.

    rule: what falling means; of `drop`, `threshold` and `dead_zone` (labels.py); of `given`, `look_ahead`: later steps
    that a label may have been made of.
    borders: times at which validation and test begin, None for 60 % and 80 % of the distinct times.
    precision: share of flagged steps that should be falling; the thresholds are chosen for it on validation.
    epochs: at most so many; None for the default, or 60 quick ones when next to nothing is there to learn from and
    nothing can be held out.
    """

    rule: labels.Rule
    window: int = WINDOW
    channels: tuple[str, ...] = ("value",)
    architecture: Architecture = field(default_factory=Architecture)
    threshold: float = DROP
    dead_zone: float | None = None
    look_ahead: int | None = None
    borders: tuple[int, int] | None = None
    precision: float = PRECISION
    seed: int = 1
    epochs: int | None = None
    patience: int = PATIENCE
    batch: int = BATCH
    learning_rate: float = LEARNING_RATE
    workers: int = 1

    @property
    def label(self) -> LabelRule:
        """The rule as the bundle tells it."""
        drop = self.rule == "drop"
        return LabelRule(
            rule=self.rule,
            look_ahead=max(labels.LOOK_AHEAD[self.rule], self.look_ahead or 0),
            threshold=self.threshold if drop else None,
            dead_zone=self.dead_zone if drop else None,
        )


def train(
    table: Table,
    recipe: Recipe,
    out: Path,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Manifest:
    """Train and write the bundle to `out`; gives its manifest. The same table, recipe and library versions give the
    same weights.

    Args:
        report: receives lines of text; progress: where fitting stands, a few times a second.
    An interrupt while fitting ends it and keeps the best so far. Raises: CannotTrain, BadTable; BadBundle or OSError
    if `out` cannot be written.
    """
    if out.name in {versions.CURRENT, versions.SHADOW}:
        raise bundle.BadBundle(
            f"{out}: in a folder of versions this is the name of a pointer; name the folder otherwise"
        )
    bundle.check_place(out)
    table, recipe, inputs = _usable(table, recipe, report)
    _check_size(inputs, recipe.architecture)
    split = _split(table, recipe, inputs, report)
    fitted = _fit(split, recipe, progress)
    if fitted.interrupted:
        report(f"interrupted: epoch {', '.join(map(str, fitted.epochs))} is the best so far, and is kept")
    chosen = _choose(fitted, split, recipe)
    manifest = Manifest(
        version="",
        window=inputs.window,
        channels=inputs.channels,
        min_history=inputs.reach,
        network=fitted.architecture,
        label=recipe.label,
        thresholds=chosen.thresholds,
        calibration=chosen.calibration,
        interval=chosen.interval,
        metrics=_evaluate(chosen, split, table),
        parts=_parts(split, table, examples.reach_of(inputs, recipe.label)),
        data=_describe(table),
        training=Training(
            seed=recipe.seed,
            epochs=fitted.epochs,
            examples=len(split.train),
            workers=recipe.workers,
            interrupted=fitted.interrupted,
        ),
        libraries=_libraries(),
        golden_rows=min(GOLDEN_ROWS, len(split.train)),
        files={},
    )
    golden = _golden(chosen.fitted, split, manifest.golden_rows, recipe.seed)
    return bundle.write(out, manifest, chosen.fitted.weights, golden, lambda fresh: _verify(fresh, out))


@dataclass(frozen=True)
class _Chosen:
    fitted: Fitted  # with calibration and shrinkage folded in
    thresholds: Thresholds
    calibration: Calibration
    interval: Interval


def _usable(table: Table, recipe: Recipe, report: Callable[[str], None]) -> tuple[Table, Recipe, Inputs]:
    """The series that can be learnt from, and a window that the longest of them fills."""
    longest = max(len(s.times) for s in table.series)
    if longest < 2:
        raise CannotTrain("every stock has a single value: there is no window to learn from")
    try:
        inputs = Inputs(recipe.window, recipe.channels)
        if longest < inputs.reach:
            window = longest - (inputs.reach - inputs.window)
            inputs = Inputs(window, recipe.channels)
            report(f"the longest series has {longest} steps: the window is {window}, instead of {recipe.window}")
    except ValueError as error:
        raise CannotTrain(str(error)) from error
    table, skipped = dataset.usable(table, inputs.reach)
    for line in skipped[:LISTED]:
        report(line)
    if len(skipped) > LISTED:
        report(f"… and {len(skipped) - LISTED:,} more stocks skipped")
    return table, replace(recipe, window=inputs.window), inputs


def _check_size(inputs: Inputs, architecture: Architecture) -> None:
    """What nothing would load is not worth fitting."""
    work = bundle.work_of(inputs, architecture)
    size = sum(4 * int(np.prod(shape)) for shape in network.shapes(inputs, architecture).values())
    for found, most, what in (
        (work, bundle.MOST_WORK, "multiplications a window"),
        (size, bundle.LARGEST[bundle.WEIGHTS], "bytes of weights"),
    ):
        if found > most:
            raise CannotTrain(
                f"{found:,} {what}, a bundle may have {most:,}: --units, --members, --window or --channels ask for a "
                "network too large to serve"
            )


def _verify(fresh: Path, out: Path) -> None:
    """Raises CannotTrain unless the service would load it: float32 of a network that ran away repeats itself badly."""
    try:
        Predictor.load(fresh)
    except bundle.BadBundle as error:
        raise CannotTrain(
            f"{str(error).replace(str(fresh), str(out))}: not written; where the network ran away, a smaller "
            "--learning-rate helps"
        ) from error


def _split(table: Table, recipe: Recipe, inputs: Inputs, report: Callable[[str], None]) -> examples.Split:
    if recipe.rule == "given" and not table.labelled:
        raise CannotTrain("--label given needs a column `falling` or `label` with 0 and 1; this table has none")
    made = examples.make(table, recipe.label, inputs)
    known = made.label[np.isfinite(made.label)]
    if len(np.unique(known)) < 2:
        what = f"all {known[0]:.0f}" if len(known) else "missing"
        needed = (
            f"; the rule needs series of at least {inputs.reach + labels.HALF} steps" if recipe.rule == "regime" else ""
        )
        raise CannotTrain(f"the labels of all windows of {inputs.window} steps are {what}{needed}")
    report(
        f"{len(made):,} windows of {inputs.window} steps from {len(table.series)} stocks, {np.mean(known):.1%} falling"
    )
    found = examples.split(made, table, recipe.label, recipe.borders)
    if recipe.borders and found.test is None:
        raise CannotTrain(found.note)
    report(found.note)
    return found


def _fit(split: examples.Split, recipe: Recipe, progress: Callable[[Progress], None]) -> Fitted:
    tiny = split.validation is None and len(split.train) < 10 * recipe.batch
    how = fit if recipe.workers == 1 else fit_together(recipe.workers)
    try:
        return how(
            split.train,
            split.validation,
            recipe.architecture,
            seed=recipe.seed,
            epochs=recipe.epochs or (2 * EPOCHS if tiny else EPOCHS),
            patience=recipe.patience,
            batch=recipe.batch,
            learning_rate=20 * recipe.learning_rate if tiny else recipe.learning_rate,
            averaging=0.0 if tiny else AVERAGING,
            report=progress,
        )
    except CannotFit as error:
        raise CannotTrain(str(error)) from error


def _choose(fitted: Fitted, split: examples.Split, recipe: Recipe) -> _Chosen:
    """Calibration and shrinkage (folded into the weights), thresholds and interval, from the validation part alone."""
    part = split.validation
    if part is None:
        # Residuals of data the network was fitted to are no measure of what comes; the moves themselves are an honest,
        # wider one.
        interval = evaluation.interval_of(split.train.change / split.train.spread, LEVEL, "moves of the training data")
        calibration = Calibration(method="identity", slope=1.0, intercept=0.0)
        return _Chosen(fitted, Thresholds(falling_on=0.5, falling_off=0.5), calibration, interval)
    raw = fitted.answers(part)
    base = float(np.nanmean(split.train.label))
    calibration = evaluation.temperature(part.label, raw.probability, base).model_copy(
        update={"change_shrink": evaluation.shrink_of(part.change, raw.change, part.time)}
    )
    fitted = replace(
        fitted,
        weights=network.rescale(
            fitted.weights,
            slope=calibration.slope,
            intercept=calibration.intercept,
            shrink=calibration.change_shrink,
        ),
    )
    answers = fitted.answers(part)
    interval = evaluation.interval_of((part.change - answers.change) / part.spread, LEVEL, "held-out residuals")
    still = features(np.zeros((1, fitted.inputs.reach, fitted.inputs.columns)), fitted.inputs).x
    at_rest, _ = network.run(fitted.inputs, fitted.architecture, fitted.weights, still)
    thresholds = evaluation.choose_thresholds(part, answers.probability, recipe.precision, float(at_rest[0]))
    return _Chosen(fitted, thresholds, calibration, interval)


def _evaluate(chosen: _Chosen, split: examples.Split, table: Table) -> Evaluation:
    def of(part: Examples | None) -> Metrics | None:
        if part is None:
            return None
        answers = chosen.fitted.answers(part)
        return evaluation.metrics(part, answers, chosen.thresholds, chosen.interval, table.time_name)

    train = of(split.train)
    assert train is not None  # noqa: S101  a split always has a train part
    return Evaluation(
        held_out=split.test is not None,
        note=split.note,
        train=train,
        validation=of(split.validation),
        test=of(split.test),
    )


def _golden(fitted: Fitted, split: examples.Split, rows: int, seed: int) -> dict[str, NDArray[Any]]:
    """A sample of windows with what the network under Keras says of them."""
    source = split.test if split.test is not None and len(split.test) >= rows else split.train
    picked = np.sort(np.random.default_rng(seed).choice(len(source), rows, replace=False))
    windows = np.ascontiguousarray(source.windows(picked))
    x = features(windows, fitted.inputs).x
    probability, change = network.run(fitted.inputs, fitted.architecture, fitted.weights, x)
    return {"windows": windows, "x": x, "probability": probability, "change": change}


def _parts(split: examples.Split, table: Table, reach: int) -> Parts:
    first, second = (None, None) if split.borders is None else map(table.time_name, split.borders)
    return Parts.model_validate(
        {"by": split.by, "validation_from": first, "test_from": second, "gap": reach - 1 if first else 0}
    )


def _describe(table: Table) -> Data:
    return Data(
        files=table.files,
        sha256=table.sha256,
        stocks=len(table.series),
        rows=table.rows,
        value=table.value,
        first=table.time_name(int(min(s.times[0] for s in table.series))),
        last=table.time_name(int(max(s.times[-1] for s in table.series))),
    )


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version(), "numpy": np.__version__, "keras": keras().__version__}
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return {**found, name: importlib.metadata.version(name)}
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
