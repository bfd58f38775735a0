"""A bundle measured on a table: its predictions, made by the very code that serves, against every baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model import compared_flag, compared_forecast
from model.bootstrap import REPLICATES
from model.compared_forecast import Compared, Forecasts
from model.held_out import held_out
from model.measured import Held, Measured, Period, Verdict, outcome
from model.scores import Ranking

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from model.dataset import Table
    from model.fit import Progress
    from model.held_out import HeldOut
    from model.manifest import Manifest
    from model.measured import Part, Row
    from model.predictor import Predictor

LEVEL = 0.95
PERIODS = 12  # stretches of time at most, in what is told over time
DECIDES: dict[Part, str] = {"flag": "auc", "forecast": "mae", "interval": "pinball"}


@dataclass(frozen=True)
class Said:
    """What the bundle says of the rows of `HeldOut.later`."""

    probability: NDArray[np.float64]
    forecasts: Forecasts


def measure(
    predictor: Predictor,
    table: Table,
    *,
    test_from: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 1,
    tell: Callable[[str, int, int], None] = lambda *_: None,
) -> Measured:
    """Score the bundle and its baselines on the rows that were held out from it.

    The same bundle, table, seed and library versions give the same numbers.

    Args:
        table: with the columns that `predictor.inputs.fields` names.
        test_from: score from this step on instead of from the bundle's own border.
        tell: receives what is being done, how much of it is done, and of how much (0, 0: unknown).
    Raises: CannotEvaluate, BadTable, CannotFit, MissingExtra.
    """
    manifest = predictor.manifest
    held = held_out(table, manifest, test_from)
    tell("predictions of the bundle", 0, 0)
    said = _predict(predictor, held)
    dense = compared_flag.dense(held, seed=seed, report=lambda at: tell(*_trained(at)))
    found, wanted = compared_flag.contenders(
        held, manifest, said.probability, dense, seed=seed, tell=lambda text: tell(text, 0, 0)
    )
    flag = compared_flag.compare(
        table,
        held,
        found,
        wanted,
        manifest.label,
        replicates=replicates,
        seed=seed,
        tell=lambda text: tell(text, 0, 0),
    )
    compared = Compared(table, held, replicates=replicates, seed=seed)
    forecast = compared_forecast.forecast(compared, said.forecasts, dense, tell)
    interval = compared_forecast.interval(compared, held, manifest, said.forecasts)
    verdicts: list[Verdict] = []
    for part, section in (("flag", flag), ("forecast", forecast), ("interval", interval)):
        if section is not None:
            verdicts += _verdicts(part, section.models)  # type: ignore[arg-type]
    return Measured(
        bundle=manifest.version,
        label=_rule(manifest),
        held=_held(table, held, manifest),
        notes=held.notes,
        replicates=replicates,
        seed=seed,
        level=LEVEL,
        flag=flag,
        forecast=forecast,
        interval=interval,
        periods=_periods(table, held, said, compared),
        verdicts=tuple(verdicts),
    )


def _predict(predictor: Predictor, held: HeldOut) -> Said:
    rows = held.later
    found = np.empty((4, len(rows)))
    for part in rows.chunks():
        windows = rows.windows(part)
        said, last = predictor.predict(windows), windows[:, -1, 0]
        found[0, part] = said.probability
        with np.errstate(over="ignore", invalid="ignore"):
            for at, values in enumerate((said.forecast, said.low, said.high), 1):
                found[at, part] = (values - last) / said.scale
    return Said(found[0], Forecasts(found[1], found[2], found[3]))


def _trained(at: Progress) -> tuple[str, int, int]:
    return f"dense 100-100-1, epoch {at.epoch}", at.done, at.batches


def _held(table: Table, held: HeldOut, manifest: Manifest) -> Held:
    times = held.later.time[held.scored]
    first, second = (None if border is None else table.time_name(border) for border in held.borders)
    return Held(
        files=table.files,
        sha256=table.sha256,
        same_data=table.sha256 == manifest.data.sha256,
        stocks=len(np.unique(held.later.stock[held.scored])),
        rows=int(held.scored.sum()),
        first=table.time_name(int(times.min())),
        last=table.time_name(int(times.max())),
        validation_from=first,
        test_from=second,
        held_out=held.certain,
        train_rows=0 if held.train is None else len(held.train),
        validation_rows=int(held.validation.sum()),
    )


def _verdicts(part: Part, models: tuple[Row, ...]) -> list[Verdict]:
    metric = DECIDES[part]
    return [
        Verdict(
            part=part,
            baseline=row.name,
            title=row.title,
            metric=metric,
            difference=row.against[metric],
            outcome=outcome(metric, row.against[metric]),
        )
        for row in models
        if metric in row.against
    ]


def _periods(table: Table, held: HeldOut, said: Said, compared: Compared) -> tuple[Period, ...]:
    """The scored rows in stretches of as many distinct steps."""
    rows = held.later
    times = np.unique(rows.time[held.scored])
    out = []
    for part in np.array_split(times, min(PERIODS, len(times))):
        inside = held.scored & (rows.time >= part[0]) & (rows.time <= part[-1])
        labelled = inside & np.isfinite(rows.label)
        auc = Ranking(rows.label[labelled], said.probability[labelled]).auc(np.ones(int(labelled.sum())))
        mine = (compared.rows.time >= part[0]) & (compared.rows.time <= part[-1])
        truth, at = compared.change[mine], compared.at[mine]
        naive = np.abs(truth).sum()
        own = np.abs(truth - said.forecasts.change[at]).sum()
        covered = (truth >= said.forecasts.low[at]) & (truth <= said.forecasts.high[at])
        out.append(
            Period(
                first=table.time_name(int(part[0])),
                last=table.time_name(int(part[-1])),
                rows=int(inside.sum()),
                auc=float(auc) if np.isfinite(auc) else None,
                mae_ratio=float(own / naive) if naive > 0 else None,
                coverage=float(np.mean(covered)) if len(truth) else None,
            )
        )
    return tuple(out)


def _rule(manifest: Manifest) -> str:
    label = manifest.label
    if label.rule == "regime":
        return "regime: the slope of the log value over the 17 steps around a step is clearly below zero"
    if label.rule == "drop":
        zone = "" if label.dead_zone is None else f"; changes up to {label.dead_zone:.3%} are left out"
        return f"drop: the next change is at most {-(label.threshold or 0):.3%}{zone}"
    return "given: the table's own labels"
