"""The falling flag against its baselines, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model import baselines, evaluation, fit, labels, lead, scores
from model.bootstrap import DayBootstrap, Draws
from model.features import features
from model.held_out import block, sampled
from model.manifest import Architecture
from model.measured import Bin, Detector, Flag, Lead, LeadCount, Number, Row, Sample, known
from model.scores import Ranking

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from model.baselines import Scorer
    from model.dataset import Table
    from model.examples import Examples
    from model.held_out import HeldOut
    from model.manifest import LabelRule, Manifest

OVERLAP = 2 * labels.HALF + 1  # days that a regime label is made of


@dataclass(frozen=True)
class Contender:
    """Probabilities and flags of the rows of `HeldOut.later`; a flag of None: no threshold could be chosen."""

    name: str
    title: str
    note: str
    probability: NDArray[np.float64]
    flag: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Dense:
    """What the dense 100-100-1 says of the rows of `later`: its forecasts are compared too."""

    probability: NDArray[np.float64]
    change: NDArray[np.float64]
    note: str


def contenders(
    held: HeldOut,
    manifest: Manifest,
    probability: NDArray[np.float64],
    dense: Dense | None,
    *,
    seed: int,
    tell: Callable[[str], None],
) -> tuple[list[Contender], float | None]:
    """The bundle first, then every baseline that these rows allow; and the precision that thresholds were set to.

    Args:
        probability: (n,) what the bundle says of each row of `later`."""
    later = held.later
    flag = evaluation.flags(probability, later.stock, manifest.thresholds)
    bundle = Contender("bundle", "this bundle", "the published flag, hysteresis included", probability, flag)
    base = _base_rate(held, manifest)
    found = [bundle]
    if base is not None:
        constant = np.full(len(later), base)
        note = f"says {base:.3f} for every step"
        found.append(Contender("majority", "always the majority", note, constant, np.full(len(later), base >= 0.5)))
    slope = baselines.slope_probability(later.slope)
    if held.train is not None:
        # A slope is no probability before something is fitted to it: on the training part, like the others.
        labelled = np.isfinite(held.train.label)
        own = baselines.slope_probability(held.train.slope[labelled])
        _, slope = baselines.calibrated(held.train.label[labelled], own, slope)
    checked = held.validation & np.isfinite(later.label)
    if held.train is None or base is None or not checked.any():
        filled = np.where(np.isfinite(slope), slope, 0.5)
        found.append(Contender("slope", "trailing slope", "not calibrated: its order only", filled, None))
        return found, None
    wanted = scores.precision(later.label[checked], flag[checked], np.ones(int(checked.sum())))
    raw = {"slope": ("trailing slope", slope, "slope of the last 8 values")}
    for name, title, (scorer, note) in _learned(held, seed, tell):
        raw[name] = (title, _score(later, scorer), note)
    if dense is not None:
        raw["dense"] = ("dense 100-100-1", dense.probability, dense.note)
    for name, (title, values, note) in raw.items():
        found.append(_calibrated(name, title, note, values, held, base, wanted))
    return found, known(wanted)


def compare(
    table: Table,
    held: HeldOut,
    found: list[Contender],
    wanted: float | None,
    rule: LabelRule,
    *,
    replicates: int,
    seed: int,
    tell: Callable[[str], None],
) -> Flag | None:
    """Every score of every contender, with differences to the bundle; None when no scored row has a label."""
    at = np.flatnonzero(held.scored & np.isfinite(held.later.label))
    if not len(at):
        return None
    rows = held.later.take(at)
    units, unit = sampled(table, rows)
    length = block(rows, units, unit, OVERLAP if rule.rule == "regime" else rule.look_ahead)
    boot = DayBootstrap(units, replicates=replicates, seed=seed, block=length)
    own: dict[str, Draws] = {}
    models = []
    for contender in found:
        tell(f"intervals of {contender.title}")
        drawn = _drawn(boot, rows.label, contender, at)
        own = own or drawn
        models.append(
            Row(
                name=contender.name,
                title=contender.title,
                note=contender.note,
                rows=len(at),
                scores={name: Number.of(draws) for name, draws in drawn.items()},
                against={}
                if contender is found[0]
                else {name: Number.of(own[name].minus(draws)) for name, draws in drawn.items()},
            )
        )
    curve = Ranking(rows.label, found[0].probability[at]).reliability(np.ones(len(at)))
    share = curve.weight / curve.weight.sum()
    return Flag(
        sample=Sample(rows=len(at), unit=unit, units=boot.days, block=boot.block),
        base_rate=float(np.mean(rows.label == 1)),
        wanted_precision=wanted,
        models=tuple(models),
        reliability=tuple(
            Bin(probability=float(p), rate=float(r), share=float(s))
            for p, r, s in zip(curve.probability, curve.rate, share, strict=True)
        ),
        lead=_lead(table, held, found, wanted, replicates, seed) if rule.rule == "regime" else None,
    )


def _drawn(
    boot: DayBootstrap, label: NDArray[np.float32], contender: Contender, at: NDArray[np.int64]
) -> dict[str, Draws]:
    p, flag = contender.probability[at], contender.flag
    drawn = boot.draws_of(Ranking(label, p).all)
    out = dict(zip(("auc", "pr_auc"), drawn, strict=False))
    if flag is not None:
        cases = [boot.mean(case) for case in scores.confusion(label == 1, flag[at])]
        points, values = ([getattr(case, name) for case in cases] for name in ("point", "values"))
        out["mcc"] = Draws(float(scores.matthews(*map(np.array, points))), scores.matthews(*values))
        out["brier"] = boot.mean((p - label) ** 2)
        out["log_loss"] = boot.mean(scores.losses(label, p))
        out["ece"] = drawn[2]
    return out


def _calibrated(
    name: str, title: str, note: str, values: NDArray[np.float64], held: HeldOut, base: float, wanted: float
) -> Contender:
    """A baseline calibrated as the bundle is, and a threshold that reaches the wanted precision on validation."""
    label, part = held.later.label, held.validation
    _, applied = baselines.calibrated(label[part], values[part], values, base=base)
    p = np.where(np.isfinite(applied), applied, base)
    checked = part & np.isfinite(label)
    threshold, reached = baselines.threshold_at(label[checked], p[checked], wanted if np.isfinite(wanted) else 1.0)
    note += f"; flag at {threshold:.3f}, precision {reached:.3f} on validation"
    return Contender(name, title, note, p, p >= threshold)


def _learned(held: HeldOut, seed: int, tell: Callable[[str], None]) -> list[tuple[str, str, tuple[Scorer, str]]]:
    assert held.train is not None  # noqa: S101  the caller looked
    train = baselines.sample(held.train, seed=seed)
    validation = baselines.sample(held.later.take(held.validation), seed=seed)
    x = _seen(train)
    tell("logistic regression")
    logistic = baselines.logistic(x, train.label)
    tell("LightGBM")
    boosted = baselines.boosted(x, train.label, _seen(validation), validation.label, seed=seed)
    return [
        ("logistic", "logistic regression", (logistic.score, logistic.note)),
        ("boosted", "LightGBM", (boosted.score, boosted.note)),
    ]


def dense(held: HeldOut, *, seed: int, report: Callable[[fit.Progress], None]) -> Dense | None:
    """The dense 100-100-1 network, trained where the bundle was; None where nothing can. Raises: CannotFit."""
    if held.train is None:
        return None
    architecture = Architecture(kind="dense")
    fitted = fit.fit(held.train, held.later.take(held.validation), architecture, seed=seed, report=report)
    if fitted.interrupted:  # Ctrl-C, which training takes as a wish to keep the best so far
        raise KeyboardInterrupt
    answers = fitted.answers(held.later)
    note = f"fitted to {len(held.train):,} windows, {fitted.epochs[0]} epochs, seed {seed}"
    return Dense(answers.probability, answers.change, note)


def _seen(rows: Examples) -> NDArray[np.float32]:
    """(n, window, channels): what the network sees; windows, twice as large and more in between, come in chunks."""
    found = np.empty((len(rows), rows.inputs.window, len(rows.inputs.channels)), np.float32)
    for part in rows.chunks():
        found[part] = features(rows.windows(part), rows.inputs).x
    return found


def _score(rows: Examples, scorer: Scorer) -> NDArray[np.float64]:
    found = np.empty(len(rows))
    for part in rows.chunks():
        found[part] = scorer(features(rows.windows(part), rows.inputs).x)
    return found


def _base_rate(held: HeldOut, manifest: Manifest) -> float | None:
    """Of the training part; without one, what the bundle remembers of its own."""
    if held.train is None:
        return manifest.metrics.train.base_rate
    label = held.train.label
    return float(np.mean(label[np.isfinite(label)] == 1))


def _lead(
    table: Table, held: HeldOut, found: list[Contender], wanted: float | None, replicates: int, seed: int
) -> Lead | None:
    """Both detectors with one threshold each, set to the same precision on validation; no hysteresis in either."""
    by_name = {contender.name: contender for contender in found}
    if wanted is None:
        return None
    later, label = held.later, held.later.label
    checked = held.validation & np.isfinite(label)
    stretches = lead.stretches(np.where(held.scored, label, np.nan).astype(np.float32), later.end, later.stock)
    scored = held.scored & np.isfinite(label)
    delays, detectors = {}, {}
    for name in ("bundle", "slope"):
        p = by_name[name].probability
        threshold, reached = baselines.threshold_at(label[checked], p[checked], wanted)
        flag = p >= threshold
        delays[name] = lead.delays(flag, stretches)
        everywhere = np.ones(int(scored.sum()))
        detectors[name] = Detector(
            threshold=threshold,
            validation_precision=reached,
            precision=known(scores.precision(label[scored], flag[scored], everywhere)),
            recall=known(scores.mean(flag[scored].astype(np.float64), (label[scored] == 1).astype(np.float64))),
            found=int(np.isfinite(delays[name]).sum()),
        )
    earlier = delays["slope"] - delays["bundle"]
    both = np.isfinite(earlier)
    rows = later.take(stretches.begin[both])
    units, unit = sampled(table, rows)
    boot = DayBootstrap(units, replicates=replicates, seed=seed, block=block(rows, units, unit, OVERLAP))
    steps, counts = np.unique(earlier[both], return_counts=True)
    values = earlier[both]
    return Lead(
        wanted_precision=wanted,
        before=labels.HALF,
        stretches=len(stretches),
        bundle=detectors["bundle"],
        slope=detectors["slope"],
        both=int(both.sum()),
        only_bundle=int((np.isfinite(delays["bundle"]) & ~np.isfinite(delays["slope"])).sum()),
        only_slope=int((np.isfinite(delays["slope"]) & ~np.isfinite(delays["bundle"])).sum()),
        mean=Number.of(boot.mean(values)),
        median=Number.of(boot.draws(lambda w: lead.median(values, w))),
        counts=tuple(LeadCount(steps=int(s), stretches=int(c)) for s, c in zip(steps, counts, strict=True)),
    )
