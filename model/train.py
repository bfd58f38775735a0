"""From a table of prices to a bundle: examples, split by time, fit, choices on validation, scores on test."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from model import bundle, evaluation, examples, labels, network
from model.evaluation import Answers
from model.features import features
from model.manifest import (
    GOLDEN_ROWS,
    Calibration,
    Data,
    Evaluation,
    Interval,
    LabelRule,
    Manifest,
    Metrics,
    Thresholds,
    Training,
)
from model.runtime import keras

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from model.dataset import Table
    from model.examples import Examples

WINDOW = 32  # steps, when nothing else is asked for
LEVEL = 0.9  # of the interval
_WATCHED = "val_falling_loss"
LARGEST_CHANGE = 32.0  # targets are cut to this many scales in training: a stock that woke up must not drown the rest


class CannotTrain(Exception):
    """This data does not allow what was asked; one line that says why."""


@dataclass(frozen=True)
class Recipe:
    """How to train. `window` is a wish: with shorter series only, the longest of them is the window.

    borders: times at which validation and test begin, None for 60 % and 80 % of the distinct times.
    look_ahead: later steps a given label may have been made of; what the rule itself uses is the least.
    epochs, patience: at most so many, and so many without a better validation loss; None for 30, or 60 quick ones
    when next to nothing is there to learn from and nothing can be held out.
    """

    rule: labels.Rule
    window: int = WINDOW
    seed: int = 1
    borders: tuple[int, int] | None = None
    look_ahead: int | None = None
    fields: tuple[str, ...] = ()
    epochs: int | None = None
    patience: int = 4
    batch: int = 256
    learning_rate: float = 0.001


def train(table: Table, recipe: Recipe, out: Path, report: Callable[[str], None] = lambda _: None) -> Manifest:
    """Train and write the bundle to `out`; gives its manifest. The same table, recipe and library versions give the
    same weights.

    Args:
        report: receives one line of progress at a time.
    Raises: CannotTrain; BadBundle or OSError if `out` cannot be written.
    """
    bundle.check_place(out)
    split, recipe = _prepare(table, recipe, report)
    report(split.note)
    net, epochs = _fit(split, recipe, report)
    chosen = _choose(net, split)
    manifest = Manifest(
        version="",
        window=recipe.window,
        min_history=recipe.window,
        fields=recipe.fields,
        units=network.UNITS,
        label=LabelRule(rule=recipe.rule, look_ahead=_look_ahead(recipe)),
        thresholds=chosen.thresholds,
        calibration=chosen.calibration,
        interval=chosen.interval,
        metrics=_evaluate(net, split, chosen, table),
        data=_describe(table),
        training=Training(seed=recipe.seed, epochs=epochs, examples=len(split.train)),
        libraries=_libraries(),
        golden_rows=min(GOLDEN_ROWS, len(split.train)),
        files={},
    )
    return bundle.write(out, manifest, network.get_weights(net), _golden(net, split, manifest.golden_rows, recipe.seed))


@dataclass(frozen=True)
class _Choices:
    thresholds: Thresholds
    calibration: Calibration
    interval: Interval


def _prepare(table: Table, recipe: Recipe, report: Callable[[str], None]) -> tuple[examples.Split, Recipe]:
    longest = max(len(s.times) for s in table.series)
    if longest < 2:
        raise CannotTrain("every stock has a single value: there is no window to learn from")
    if longest < recipe.window:
        report(f"the longest series has {longest} steps: that is the window, instead of {recipe.window}")
        recipe = replace(recipe, window=longest)
    if recipe.rule == "given" and not table.labelled:
        raise CannotTrain("--label given needs a column `falling` or `label` with 0 and 1; this table has none")
    made = examples.make(table, recipe.rule, recipe.window, _look_ahead(recipe))
    known = made.label[np.isfinite(made.label)]
    if len(np.unique(known)) < 2:
        what = "all the same" if len(known) else "missing"
        needed = (
            f"; the rule needs series of at least {recipe.window + labels.HALF} steps"
            if recipe.rule == "regime"
            else ""
        )
        raise CannotTrain(f"the labels of all windows of {recipe.window} steps are {what}{needed}")
    report(
        f"{len(made):,} windows of {recipe.window} steps from {len(table.series)} stocks, {np.mean(known):.1%} falling"
    )
    split = examples.split(made, recipe.borders)
    if recipe.borders and split.test is None:
        raise CannotTrain(f"{split.note}: choose other borders")
    return split, recipe


def _fit(split: examples.Split, recipe: Recipe, report: Callable[[str], None]) -> tuple[Any, int]:
    """The trained network, with the weights of its best epoch, and how many epochs that took."""
    k = keras()
    k.utils.set_random_seed(recipe.seed)
    net = network.build(recipe.window, 1 + len(recipe.fields))
    tiny = split.validation is None and len(split.train) < 10 * recipe.batch
    net.compile(
        k.optimizers.Adam(0.02 if tiny else recipe.learning_rate),
        # Huber and not MSE: steps of prices have heavy tails, and one crash day must not steer the forecast.
        loss={"falling": "binary_crossentropy", "change": k.losses.Huber(1.0)},
    )
    best = {"epoch": 0, "loss": np.inf}

    def told(epoch: int, logs: dict[str, float]) -> None:
        loss = logs.get(_WATCHED, logs["falling_loss"])
        if loss < best["loss"]:
            best.update(epoch=epoch + 1, loss=loss)
        if not tiny or epoch % 20 == 19:
            held = f", on held-out time {loss:.4f}" if _WATCHED in logs else ""
            report(f"epoch {epoch + 1}: log loss of the flag {logs['falling_loss']:.4f}{held}")

    callbacks = [k.callbacks.LambdaCallback(on_epoch_end=told)]
    if split.validation is not None:
        # The flag's loss alone: that of the forecast is nearly all noise, whose low is a matter of chance.
        watch = k.callbacks.EarlyStopping(_WATCHED, mode="min", patience=recipe.patience, restore_best_weights=True)
        callbacks.append(watch)
    x, y, weight = _arrays(split.train)
    ran = net.fit(
        x,
        y,
        sample_weight=weight,
        batch_size=recipe.batch,
        epochs=recipe.epochs or (60 if tiny else 30),
        validation_data=None if split.validation is None else _arrays(split.validation),
        callbacks=callbacks,
        verbose=0,
    )
    return net, int(best["epoch"]) if split.validation is not None else len(ran.epoch)


def _choose(net: Any, split: examples.Split) -> _Choices:
    """Calibration (folded into the network), thresholds and interval, from the validation part alone."""
    part = split.validation
    if part is None:
        # Residuals of data the network was fitted to are no measure of what comes; the moves themselves are an honest,
        # wider one.
        interval = evaluation.interval_of(evaluation.changes(split.train), LEVEL, "moves of the training data")
        calibration = Calibration(method="identity", slope=1.0, intercept=0.0)
        return _Choices(Thresholds(falling_on=0.5, falling_off=0.5), calibration, interval)
    calibration = evaluation.platt(part.label, _answers(net, part).probability)
    head = net.get_layer("falling")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * calibration.slope, bias * calibration.slope + calibration.intercept])
    answers = _answers(net, part)
    interval = evaluation.interval_of(evaluation.changes(part) - answers.change, LEVEL, "held-out residuals")
    return _Choices(evaluation.choose_thresholds(part, answers.probability), calibration, interval)


def _evaluate(net: Any, split: examples.Split, chosen: _Choices, table: Table) -> Evaluation:
    def of(part: Examples | None) -> Metrics | None:
        if part is None:
            return None
        return evaluation.metrics(part, _answers(net, part), chosen.thresholds, chosen.interval, table.time_name)

    train = of(split.train)
    assert train is not None  # noqa: S101  a split always has a train part
    return Evaluation(
        held_out=split.test is not None,
        note=split.note,
        train=train,
        validation=of(split.validation),
        test=of(split.test),
    )


def _golden(net: Any, split: examples.Split, rows: int, seed: int) -> dict[str, NDArray[Any]]:
    """A sample of windows with what the network under Keras says of them."""
    source = split.test if split.test is not None and len(split.test) >= rows else split.train
    picked = np.sort(np.random.default_rng(seed).choice(len(source), rows, replace=False))
    windows = np.ascontiguousarray(source.windows[picked])
    x = features(windows).x
    probability, change = network.run(net, x)
    return {"windows": windows, "x": x, "probability": probability, "change": change}


def _answers(net: Any, part: Examples) -> Answers:
    probability, change = network.run(net, features(part.windows).x)
    return Answers(probability.astype(np.float64), change.astype(np.float64))


def _arrays(part: Examples) -> tuple[NDArray[np.float32], dict[str, Any], dict[str, Any]]:
    """Inputs, targets and weights as Keras takes them; an unknown answer weighs nothing."""
    change = evaluation.changes(part)
    known, scored = np.isfinite(part.label), np.isfinite(change)
    targets = {
        "falling": np.where(known, part.label, 0).astype(np.float32)[:, None],
        "change": np.clip(np.where(scored, change, 0), -LARGEST_CHANGE, LARGEST_CHANGE).astype(np.float32)[:, None],
    }
    return features(part.windows).x, targets, {"falling": known.astype(np.float32), "change": scored.astype(np.float32)}


def _look_ahead(recipe: Recipe) -> int:
    return max(labels.LOOK_AHEAD[recipe.rule], recipe.look_ahead or 0)


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
