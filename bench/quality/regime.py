"""The regime flag on the ACL18 prices: against the trailing slope, against learners that know nothing of time.

Trained before 2015, stopped and calibrated on 2015, asked from 2016 on: the recipe of the bundle that ships. A label
is the slope over 17 days, so answers of neighbouring days are made of the same moves: intervals draw blocks of 17 days.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.quality.bars import bar
from bench.quality.benchmark import PRICES
from bench.quality.days import over_seeds, told
from bench.quality.jobs import run
from bench.quality.learners import Network
from bench.quality.product import held_out, loaded, split
from model import baselines, dataset, labels, predictor, scores
from model.bootstrap import DayBootstrap, Draws
from model.features import features
from model.manifest import LabelRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model.dataset import Table
    from model.examples import Examples
    from model.inputs import Inputs

FROM = ("2015-01-01", "2016-01-01")  # validation and test begin
RULE = LabelRule(rule="regime", look_ahead=labels.LOOK_AHEAD["regime"])
BLOCK = 2 * labels.HALF + 1
OURS = Network()
DENSE = Network(kind="dense", units=100)
# What fit offers; the default is the first, unless validation says otherwise by more than its own noise.
VARIANTS: dict[str, tuple[Network, int]] = {
    "the default": (OURS, 1),
    "without the linear path": (Network(direct=False), 1),
    "three networks averaged": (OURS, 3),
    "weights not averaged": (Network(averaging=0), 1),
    "a third of the learning rate": (Network(learning_rate=3e-4), 1),
    "8 units": (Network(units=8), 1),
    "64 units": (Network(units=64), 1),
    "changes instead of levels": (Network(("value.change",)), 1),
    "levels and changes": (Network(("value", "value.change")), 1),
    "levels and volatility": (Network(("value", "value.volatility8")), 1),
}
Said = tuple["NDArray[np.float64]", "NDArray[np.float64]"]  # probabilities of falling: validation, test


@cache
def table() -> Table:
    """All 88 stocks, as the bundle that ships was trained on."""
    return dataset.read([PRICES])


@cache
def parts(inputs: Inputs) -> tuple[Examples, Examples, Examples]:
    """Train, validation, test: those with a label; of the held-out ones, those that every variant's reach allows."""
    found = split(table(), RULE, inputs, _borders())
    validation, test = (part.take(_asked(part, keys)) for part, keys in zip(held_out(found), _common(), strict=True))
    return found.train.take(np.isfinite(found.train.label)), validation, test


@cache
def _common() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which stock and time the rows of validation and test have that the farthest-reaching variant has too."""
    farthest = max((variant.inputs for variant, _ in VARIANTS.values()), key=lambda inputs: inputs.reach)
    validation, test = held_out(split(table(), RULE, farthest, _borders()))
    return _keys(validation), _keys(test)


def _asked(part: Examples, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.isfinite(part.label) & np.isin(_keys(part), keys)


def _keys(part: Examples) -> NDArray[np.int64]:
    return part.stock * 2**48 + part.time


def _borders() -> tuple[int, int]:
    return table().time_of(FROM[0]), table().time_of(FROM[1])


def network(chosen: Network, members: int, seed: int) -> Said:
    """Stopped and calibrated on validation, as `train` does it."""
    train, validation, test = parts(chosen.inputs)
    fitted = chosen.fit(train, validation, seed=seed, members=members)
    return _calibrated(*(fitted.answers(part).probability for part in (validation, test)))


def logistic() -> Said:
    train, validation, test = parts(OURS.inputs)
    learnt = baselines.logistic(_x(train), train.label)
    return _calibrated(learnt.score(_x(validation)), learnt.score(_x(test)))


def boosted(seed: int) -> Said:
    train, validation, test = parts(OURS.inputs)
    learnt = baselines.boosted(_x(train), train.label, _x(validation), validation.label, seed=seed)
    return _calibrated(learnt.score(_x(validation)), learnt.score(_x(test)))


def slope() -> Said:
    _, validation, test = parts(OURS.inputs)
    said = (baselines.slope_probability(part.slope) for part in (validation, test))
    first, second = baselines.calibrated(validation.label, *said)  # no probability yet: Platt's two numbers
    return first, second


def shipped() -> Said:
    """The bundle in the package, through the Predictor that the service runs."""
    found = loaded(Path(predictor.DEFAULT_BUNDLE), table(), RULE, _borders())
    own = held_out(split(table(), RULE, OURS.inputs, _borders()))
    validation, test = (
        said.probability[_asked(part, keys)].astype(np.float64)
        for said, part, keys in zip((found.validation, found.test), own, _common(), strict=True)
    )
    return validation, test


class FlagJudge:
    """Scores of the test part, with intervals over blocks of days."""

    def __init__(self, replicates: int) -> None:
        _, self._validation, self._test = parts(OURS.inputs)
        self._bootstrap = DayBootstrap(self._test.time, replicates=replicates, block=BLOCK)
        self._aucs: dict[str, Draws] = {}

    def row(self, name: str, kind: str, said: Sequence[Said]) -> dict[str, Any]:
        """A row from what each seed said."""
        label = self._test.label
        rankings = [scores.Ranking(label, test) for _, test in said]
        losses = [scores.losses(label, test) for _, test in said]
        aucs = [self._bootstrap.draws(one.auc) for one in rankings]
        self._aucs[name] = over_seeds(aucs)
        return {
            "name": name,
            "kind": kind,
            "seeds": len(said),
            "validation_auc": float(np.mean([_auc(self._validation, val) for val, _ in said])),
            "validation_log_loss": float(
                np.mean([scores.losses(self._validation.label, val).mean() for val, _ in said])
            ),
            "auc": told(aucs),
            "log_loss": told([self._bootstrap.draws(partial(scores.mean, one)) for one in losses]),
            "ece": told([self._bootstrap.draws(one.ece) for one in rankings]),
            "brier": float(np.mean([np.mean((test - label) ** 2) for _, test in said])),
        }

    def over(self, name: str, other: str) -> dict[str, float]:
        """AUC of a row less that of another, paired."""
        return told([self._aucs[name].minus(self._aucs[other])])


def measure(seeds: int, replicates: int, *, quick: bool) -> dict[str, Any]:
    """The whole result, without what is said of machine and time."""
    numbers = range(1, seeds + 1)
    variants = dict(list(VARIANTS.items())[:2]) if quick else VARIANTS
    few = range(1, 1 + (1 if quick else 3))
    jobs: dict[str, Any] = {
        **{f"{name}, seed {s}": (network, (*made, s)) for name, made in variants.items() for s in few},
        **{f"the default, seed {s}": (network, (OURS, 1, s)) for s in numbers},
        **{f"dense, seed {s}": (network, (DENSE, 1, s)) for s in numbers},
        **{f"LightGBM, seed {s}": (boosted, (s,)) for s in numbers},
        "logistic regression": (logistic, ()),
        "trailing slope": (slope, ()),
        "shipped": (shipped, ()),
    }
    said = run(jobs, "train")
    judge = FlagJudge(replicates)

    def of(name: str, which: Sequence[int] = numbers) -> list[Said]:
        return [said[f"{name}, seed {s}"] for s in which]

    ours, bundle = "our LSTM", "the bundle that ships"
    rows = [
        judge.row("trailing slope", "rule", [said["trailing slope"]]),
        judge.row("logistic regression", "baseline", [said["logistic regression"]]),
        judge.row("LightGBM", "baseline", of("LightGBM")),
        judge.row("dense 100-100-1", "baseline", of("dense")),
        judge.row(ours, "ours", of("the default")),
        judge.row(bundle, "ours", [said["shipped"]]),
    ]
    others = [row["name"] for row in rows[:4]]
    differences = {name: {other: judge.over(name, other) for other in others} for name in (ours, bundle)}
    return {
        "seeds": seeds,
        "auc_mean": rows[4]["auc"]["mean"],
        "auc_sd": rows[4]["auc"]["sd"],
        "base_rate": float(np.mean(parts(OURS.inputs)[2].label)),
        "rows": rows,
        "differences": differences,
        "ablation": [judge.row(name, "variant", of(name, few)) for name in variants],
        "bars": [
            *(
                bar(f"AUC of {name} less that of {other}", found[other]["mean"], least=0)
                for name, found in differences.items()
                for other in ("dense 100-100-1", "LightGBM")
            ),
            *(
                bar(f"AUC of {name} less the trailing slope's: low end", found["trailing slope"]["low"], least=1e-9)
                for name, found in differences.items()
            ),
            *(bar(f"ECE of {row['name']}", row["ece"]["mean"], most=0.02) for row in rows[4:]),
        ],
    }


def _auc(part: Examples, said: NDArray[np.float64]) -> float:
    return scores.Ranking(part.label, said).auc(np.ones(len(said)))


def _calibrated(validation: NDArray[np.float64], test: NDArray[np.float64]) -> Said:
    train, held, _ = parts(OURS.inputs)
    first, second = baselines.calibrated(held.label, validation, test, base=float(np.mean(train.label)))
    return first, second


def _x(part: Examples) -> NDArray[np.float32]:
    return features(part.windows(), part.inputs).x
