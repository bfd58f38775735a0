"""The forecast and its interval, on the ACL18 prices and on five long series, against what is hard to beat.

Bundles are made by `train` with its defaults and asked through the Predictor. Errors are in the window's own scale, so
that all stocks weigh alike; pinball losses are in hundredths of a percent of the last value.
Rivals: the last value (naive), the drift, and the EWMA volatility of RiskMetrics around the last value, once with
the normal quantiles it was published with, once with those of everything before the test part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.machine import ROOT
from bench.quality.bars import bar
from bench.quality.benchmark import PRICES
from bench.quality.days import told
from bench.quality.jobs import run
from bench.quality.product import Said, asked, held_out, loaded, split
from bench.quality.regime import FROM, RULE
from model import classical, dataset, predictor, scores
from model.bootstrap import DayBootstrap
from model.diebold_mariano import by_day, diebold_mariano
from model.inputs import Inputs
from model.spread import ewma, units, volatility
from model.train import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from model.bootstrap import Weights
    from model.dataset import Table
    from model.predictor import Predictions

LEVEL = 0.9
NORMAL = 1.6449  # the normal quantile that leaves 5 % above it
PARTS = (0.7, 0.85)  # of the days of daily-us: validation and test begin


@dataclass(frozen=True)
class Prices:
    """A data set and where its validation and test begin."""

    name: str
    path: Path

    def table(self) -> Table:
        return dataset.read([self.path])

    def borders(self, table: Table) -> tuple[int, int]:
        if self.name == "ACL18":
            return table.time_of(FROM[0]), table.time_of(FROM[1])
        days = np.unique(np.concatenate([series.times for series in table.series]))
        return int(days[int(PARTS[0] * len(days))]), int(days[int(PARTS[1] * len(days))])


SETS = (
    Prices("ACL18", PRICES),
    Prices("daily-us", ROOT / "consumer" / "data" / "daily-us" / "stocks.csv.gz"),
)


def ours(prices: Prices, seed: int) -> Said:
    table = prices.table()
    return asked(table, Recipe("regime", borders=prices.borders(table), seed=seed))


def shipped(prices: Prices) -> Said:
    table = prices.table()
    return loaded(predictor.DEFAULT_BUNDLE, table, RULE, prices.borders(table))


class ForecastJudge:
    """One data set's test part: truth, rivals, and the intervals over days."""

    def __init__(self, prices: Prices, replicates: int) -> None:
        table = prices.table()
        borders = prices.borders(table)
        _, whole = held_out(split(table, RULE, Inputs(32), borders))
        self.known = np.isfinite(whole.target)
        self.test = test = whole.take(self.known)
        self.first, self.last = table.time_name(int(test.until.min())), table.time_name(int(test.until.max()))
        self.scale, self.value = test.scale, test.series[test.end, 0]
        self.truth = test.target
        self._bootstrap = DayBootstrap(test.until, replicates=replicates)
        values = [series.values[:, 0] for series in table.series]
        before = [int(np.searchsorted(series.times, borders[1])) for series in table.series]
        found = ewma(values, before, LEVEL)
        assert found is not None  # noqa: S101  both data sets are long before their borders
        sigma = np.concatenate([volatility(v) * units(v) for v in values])[test.end]
        self.drift = np.concatenate([classical.drift(v) for v in values])[test.end]
        self.rivals = {
            "EWMA, quantiles of the past": (
                np.concatenate([low for low, _ in found])[test.end],
                np.concatenate([high for _, high in found])[test.end],
            ),
            "EWMA, normal quantiles": (self.value - NORMAL * sigma, self.value + NORMAL * sigma),
        }

    def point(self, forecasts: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
        """Skill of forecasts (one per seed) against the last value; a positive one is better."""
        found: dict[str, Any] = {}
        naive = (self.truth - self.value) / self.scale
        for name, loss in (("mae", np.abs), ("mse", np.square)):
            ours = [loss((self.truth - forecast) / self.scale) for forecast in forecasts]
            found[f"{name}_skill"] = self._over(ours, loss(naive), lambda model, base: 1 - model / base)
            gaps = [diebold_mariano(by_day(lost - loss(naive), self.test.until)) for lost in ours]
            found[f"{name}_dm"] = [{"statistic": _number(one.statistic), "p": _number(one.p_value)} for one in gaps]
        return found

    def interval(self, said: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> dict[str, Any]:
        """Coverage, width and pinball loss of intervals (one per seed), and the loss over each rival's, in percent."""
        inside = [((self.truth >= low) & (self.truth <= high)).astype(np.float64) for low, high in said]
        pinball = [self._pinball(low, high) for low, high in said]
        nothing = np.ones(len(self.truth))
        return {
            "coverage": self._over(inside, nothing, lambda share, _: share),
            "width": float(np.mean([np.mean((high - low) / self.value) for low, high in said])),
            "pinball": self._over(pinball, nothing, lambda loss, _: loss),
            "over": {
                name: self._over(pinball, self._pinball(*ends), lambda loss, other: 100 * (loss / other - 1))
                for name, ends in self.rivals.items()
            },
        }

    def _pinball(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
        below = scores.pinball_losses(self.truth, low, (1 - LEVEL) / 2)
        above = scores.pinball_losses(self.truth, high, (1 + LEVEL) / 2)
        return np.asarray(1e4 * (below + above) / 2 / self.value)

    def _over(
        self,
        each: Sequence[NDArray[np.float64]],
        base: NDArray[np.float64],
        how: Callable[[float, float], float],
    ) -> dict[str, float]:
        """A number of the mean losses of model and base, averaged over seeds, with its interval."""

        def of(model: NDArray[np.float64], weights: Weights) -> float:
            return how(scores.mean(model, weights), scores.mean(base, weights))

        return told([self._bootstrap.draws(partial(of, one)) for one in each])


def measure(seeds: int, replicates: int, *, quick: bool) -> dict[str, Any]:
    """The whole result, without what is said of machine and time."""
    sets = SETS[1:] if quick else SETS
    numbers = range(1, seeds + 1)
    jobs: dict[str, Any] = {f"{p.name}, seed {seed}": (ours, (p, seed)) for p in sets for seed in numbers}
    jobs["shipped"] = (shipped, (SETS[0],))
    said = run(jobs, "train")
    found = []
    for prices in sets:
        judge = ForecastJudge(prices, replicates)
        rows = [_row(judge, "ours", [said[f"{prices.name}, seed {seed}"] for seed in numbers])]
        if prices.name == "ACL18":
            rows.append(_row(judge, "the bundle that ships", [said["shipped"]]))
        rows.append({"name": "drift", "seeds": 1, **judge.point([judge.drift])})
        rows += [{"name": name, "seeds": 1, **judge.interval([ends])} for name, ends in judge.rivals.items()]
        found.append({"data": prices.name, "test": [judge.first, judge.last], "rows": len(judge.truth), "table": rows})
    return {"seeds": seeds, "rows": found, "bars": [one for part in found for one in _bars(part)]}


def _bars(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    bars = []
    for row in (row for row in part["table"] if "coverage" in row and "mae_skill" in row):
        where = f"{part['data']}, {row['name']}"
        # Not worse, nor significantly so: an interval that lies below zero as a whole is. Where the forecast is the
        # last value itself the skill is 0, but for rounding.
        bars += [
            bar(f"{where}: {s.upper()} skill, {what}", row[f"{s}_skill"][end], least=least)
            for s in ("mae", "mse")
            for what, end, least in (("mean", "mean", -1e-9), ("high end", "high", 0))
        ]
        bars.append(bar(f"{where}: coverage", row["coverage"]["mean"], least=0.88, most=0.92))
        bars += [bar(f"{where}: pinball % over {name}", over["mean"], most=0) for name, over in row["over"].items()]
    return bars


def _row(judge: ForecastJudge, name: str, found: Sequence[Said]) -> dict[str, Any]:
    tests: list[Predictions] = [one.test for one in found]
    return {
        "name": name,
        "seeds": len(found),
        **judge.point([one.forecast[judge.known] for one in tests]),
        **judge.interval([(one.low[judge.known], one.high[judge.known]) for one in tests]),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
