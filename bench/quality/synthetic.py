"""Series whose optimum is known (known.py): how much of what can be learnt does `train` learn, with its defaults?

Every number compares three on the same test rows: knowing nothing, the model, the optimum. The share of attainable
skill is (model - nothing) / (optimum - nothing); its interval comes from resampling series, which are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.quality.bars import bar
from bench.quality.days import told
from bench.quality.jobs import run
from bench.quality.known import SIGMA, Ar, Process, Switching, values
from bench.quality.product import asked, held_out, split
from model import scores
from model.bootstrap import DayBootstrap, Draws
from model.dataset import Series, Table
from model.inputs import Inputs
from model.train import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model.bootstrap import Weights

PROCESSES: dict[str, Process] = {
    "random walk": Ar(0.0),
    "AR(1), phi .3": Ar(0.3),
    "AR(1), phi -.4": Ar(-0.4),
    "regime switching, drift .75": Switching(0.75, 0.95),
}
THRESHOLD = 0.5  # of a drop, in sigmas
SERIES, STEPS = 200, 2000
SHARES = {"mse": "MSE skill", "mae": "MAE skill", "auc": "AUC", "log_loss": "log loss gain"}
BORDERS = (0.6, 0.8)  # validation and test begin
DRAWN_BY = 4321  # seed of the series themselves: all models of a process see the same


@dataclass(frozen=True)
class Answers:
    """Test rows, (n,) each: which series, the truth, what the model said, what the optimum says; changes in sigmas."""

    series: NDArray[np.int64]
    falling: NDArray[np.float32]
    change: NDArray[np.float64]
    probability: NDArray[np.float64]
    forecast: NDArray[np.float64]
    best_probability: NDArray[np.float64]
    best_forecast: NDArray[np.float64]


def answers(process: Process, seed: int, series: int, steps: int) -> Answers:
    """Train on the first 60 %, stop and calibrate on the next 20 %, answer for the rest."""
    drawn = process.draw(np.random.default_rng(DRAWN_BY), series, steps)
    table = _table(values(drawn))
    borders = (int(BORDERS[0] * steps), int(BORDERS[1] * steps))
    recipe = Recipe("drop", threshold=THRESHOLD * SIGMA, borders=borders, seed=seed)
    said = asked(table, recipe).test
    _, part = held_out(split(table, recipe.label, Inputs(recipe.window), borders))
    known = np.isfinite(part.target)
    test = part.take(known)
    last = test.series[test.end, 0]
    mean, below = process.best(drawn, THRESHOLD)
    at = test.stock, test.time - 1  # value 0 comes before any change: value t is made by change t - 1
    unit = SIGMA * last
    return Answers(
        test.stock,
        test.label,
        (test.target - last) / unit,
        said.probability[known].astype(np.float64),
        (said.forecast[known] - last) / unit,
        below[at],
        mean[at],
    )


def judge(found: Sequence[Answers], replicates: int) -> dict[str, Any]:
    """Scores over seeds, with the intervals over series; shares only where there is something to attain."""
    bootstrap = DayBootstrap(found[0].series, replicates=replicates)
    per_seed = [_scores(one, bootstrap) for one in found]
    result: dict[str, Any] = {}
    for name in per_seed[0]:
        result[name] = told([drawn[name] for drawn in per_seed])
    result["off_base"] = float(np.mean([np.mean(np.abs(one.probability - np.mean(one.falling))) for one in found]))
    return result


def _scores(one: Answers, bootstrap: DayBootstrap) -> dict[str, Draws]:
    """Skill of model and optimum in squared error, absolute error, AUC and log loss, and the shares."""
    found: dict[str, Draws] = {}
    for who, forecast, probability in (
        ("model", one.forecast, one.probability),
        ("best", one.best_forecast, one.best_probability),
    ):
        squared, absolute = (one.change - forecast) ** 2, np.abs(one.change - forecast)
        ranking, losses = scores.Ranking(one.falling, probability), scores.losses(one.falling, probability)
        found[f"mse_{who}"] = _skill(bootstrap, squared, one.change**2)
        found[f"mae_{who}"] = _skill(bootstrap, absolute, np.abs(one.change))
        found[f"auc_{who}"] = bootstrap.draws(partial(_above_half, ranking))
        found[f"log_loss_{who}"] = bootstrap.draws(partial(_gain, one.falling, losses))
    for score in ("mse", "mae", "auc", "log_loss"):
        found[f"{score}_share"] = found[f"{score}_model"].over(found[f"{score}_best"])
    return found


def _skill(bootstrap: DayBootstrap, lost: NDArray[np.float64], naive: NDArray[np.float64]) -> Draws:
    return bootstrap.draws(lambda weights: 1 - scores.mean(lost, weights) / scores.mean(naive, weights))


def _above_half(ranking: scores.Ranking, weights: Weights) -> float:
    return ranking.auc(weights) - 0.5


def _gain(falling: NDArray[np.float32], losses: NDArray[np.float64], weights: Weights) -> float:
    """Log loss of the base rate of all rows less that of the probabilities."""
    base = scores.losses(falling, np.full(len(falling), float(np.mean(falling))))
    return scores.mean(base - losses, weights)


def _table(found: NDArray[np.float64]) -> Table:
    times = np.arange(found.shape[1])
    nothing = np.full(found.shape[1], np.nan, np.float32)
    series = tuple(Series(f"series {k:04}", times, v[:, None], nothing) for k, v in enumerate(found))
    return Table(series, ("synthetic",), "0" * 64, found.size, 0, "value")


def measure(seeds: int, replicates: int, *, quick: bool) -> dict[str, Any]:
    """The whole result, without what is said of machine and time."""
    series, steps = (40, 600) if quick else (SERIES, STEPS)
    jobs = {
        f"{name}, seed {seed}": (answers, (process, seed, series, steps))
        for name, process in PROCESSES.items()
        for seed in range(1, seeds + 1)
    }
    said = run(jobs, "train")
    rows = [
        {"name": name, **judge([said[f"{name}, seed {seed}"] for seed in range(1, seeds + 1)], replicates)}
        for name in PROCESSES
    ]
    return {"seeds": seeds, "series": series, "steps": steps, "threshold": THRESHOLD, "rows": rows, "bars": _bars(rows)}


def _bars(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    walk, others = rows[0], rows[1:]
    return [
        *(
            bar(f"{row['name']}: share of {title}", row[f"{score}_share"]["mean"], least=0.95)
            for row in others
            for score, title in SHARES.items()
        ),
        bar("random walk: low end of MSE skill", walk["mse_model"]["low"], most=0),
        bar("random walk: high end of MSE skill", walk["mse_model"]["high"], least=0),
        bar("random walk: low end of AUC above ½", walk["auc_model"]["low"], most=0),
        bar("random walk: probabilities off the base rate", walk["off_base"], most=0.01),
    ]
