"""What an evaluation found: the content of the JSON beside the report. Its meaning does not change within a `format`.

Numbers come with a 95 % interval (bootstrap.py); null means that the rows cannot tell. `against` holds differences,
always the bundle's score minus the row's, from the same rows and the same replicates.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from model.bootstrap import Draws, Scored

Part = Literal["flag", "forecast", "interval"]
Unit = Literal["day", "step", "stock"]
Outcome = Literal["better", "worse", "the same", "not told apart"]


class Metric(NamedTuple):
    """How a score is read: `better` says which way; `digits` behind the point."""

    title: str
    better: Literal["higher", "lower", "neither"]
    digits: int
    meaning: str


METRICS = {
    "auc": Metric("ROC-AUC", "higher", 3, "chance that a falling step scores above one that is not; 0.5 knows nothing"),
    "pr_auc": Metric("PR-AUC", "higher", 3, "average precision; the base rate knows nothing"),
    "mcc": Metric("MCC", "higher", 3, "Matthews correlation of the flag with the label; 0 knows nothing"),
    "brier": Metric("Brier", "lower", 4, "mean squared distance of the probability from the label"),
    "log_loss": Metric("log loss", "lower", 4, "mean negative log likelihood, in nats"),
    "ece": Metric(
        "ECE", "lower", 4, "mean gap between probability and frequency, 15 bins of equal weight; noise alone raises it"
    ),
    "mae": Metric("MAE", "lower", 4, "mean absolute error, in scales of the window"),
    "rmse": Metric("RMSE", "lower", 4, "root of the mean squared error, in scales of the window"),
    "mae_ratio": Metric("MAE / naive", "lower", 4, "below 1 is better than the last value, on the same rows"),
    "rmse_ratio": Metric("RMSE / naive", "lower", 4, "below 1 is better than the last value, on the same rows"),
    "mase": Metric(
        "MASE",
        "lower",
        4,
        "mean absolute error over the stock's own mean step in the training part (Hyndman & Koehler)",
    ),
    "coverage": Metric("coverage", "neither", 4, "share of the next values inside; should be the level"),
    "width": Metric("width", "neither", 3, "mean width, in scales of the window"),
    "pinball": Metric("pinball", "lower", 5, "mean pinball loss of both ends, in scales of the window"),
    "pinball_low": Metric("pinball, low end", "lower", 5, "pinball loss of the low end"),
    "pinball_high": Metric("pinball, high end", "lower", 5, "pinball loss of the high end"),
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Number(_Part):
    """A score and its 95 % interval."""

    point: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, found: Scored | Draws) -> Number:
        """From what the bootstrap gives; what is not finite becomes null."""
        scored = found.scored() if isinstance(found, Draws) else found
        return cls(point=known(scored.point), low=known(scored.low), high=known(scored.high))


class Row(_Part):
    """The bundle, or one baseline."""

    name: str = Field(description="bundle, or the baseline's short name; does not change")
    title: str
    note: str = Field(description="what it was made of, and what must be known to read its scores")
    rows: int = Field(ge=0, description="rows it was scored on")
    scores: dict[str, Number] = Field(description="by name; the names and their meaning are in METRICS")
    against: dict[str, Number] = Field(description="the bundle's score minus this one's, paired; empty for the bundle")


class Sample(_Part):
    """The rows of a part, and what was resampled for its intervals."""

    rows: int = Field(ge=0)
    unit: Unit = Field(description="what the bootstrap draws")
    units: int = Field(ge=0, description="distinct ones: the sample size")
    block: int = Field(ge=1, description="units in a row that are drawn together")


class Bin(_Part):
    """One bin of the reliability diagram."""

    probability: float
    rate: float
    share: float = Field(description="of the rows")


class LeadCount(_Part):
    """How many stretches had this lead."""

    steps: int
    stretches: int


class Detector(_Part):
    """The bundle's probability or the trailing slope, with a single threshold."""

    threshold: float
    validation_precision: float
    precision: float | None = Field(description="on the scored rows")
    recall: float | None
    found: int = Field(description="stretches with a flag from `before` steps before their begin to their end")


class Lead(_Part):
    """How many steps earlier than the trailing slope a falling stretch is flagged (lead.py)."""

    wanted_precision: float = Field(description="of both detectors, on the validation part")
    before: int = Field(description="steps before a stretch's begin in which a flag counts")
    stretches: int
    bundle: Detector
    slope: Detector
    both: int = Field(description="stretches that both found: the lead is of these")
    only_bundle: int
    only_slope: int
    mean: Number = Field(description="steps; above zero: the bundle is earlier")
    median: Number
    counts: tuple[LeadCount, ...]


class Flag(_Part):
    """Is the stock falling?"""

    sample: Sample
    base_rate: float | None = Field(description="share of falling rows")
    wanted_precision: float | None = Field(
        description="of the published flag on the validation part; the baselines' thresholds are set to reach it there"
    )
    models: tuple[Row, ...] = Field(description="the bundle first")
    reliability: tuple[Bin, ...] = Field(description="of the bundle, from high to low probability")
    lead: Lead | None = Field(description="for the rule `regime`, where a validation part sets the thresholds")


class LossTest(_Part):
    """Diebold-Mariano on the mean loss difference of each unit of time; below zero: the bundle loses less."""

    statistic: float | None
    p_value: float | None
    n: int


class ForecastRow(Row):
    """A forecast of the next value."""

    absolute: LossTest | None = Field(
        description="of absolute errors; null for the bundle, and where the unit is `stock`"
    )
    squared: LossTest | None


class Forecast(_Part):
    """What comes next? Errors in scales of the window, so that stocks weigh alike."""

    sample: Sample
    models: tuple[ForecastRow, ...]
    largest: float = Field(description="the largest change, in scales; far above 30 it rules the RMSE")


class Interval(_Part):
    """Between which values does the next one lie?"""

    sample: Sample
    level: float
    models: tuple[Row, ...]


class Period(_Part):
    """A stretch of the scored time."""

    first: str
    last: str
    rows: int
    auc: float | None
    mae_ratio: float | None
    coverage: float | None


class Verdict(_Part):
    """The bundle against one baseline, by the score that decides."""

    part: Part
    baseline: str
    title: str
    metric: str
    difference: Number
    outcome: Outcome = Field(description="not told apart: the interval holds 0, or there is none; the same: all is 0")


class Held(_Part):
    """Which rows were scored, and what that is worth."""

    files: tuple[str, ...]
    sha256: str
    same_data: bool = Field(description="the data have the fingerprint of those that the bundle was made of")
    stocks: int
    rows: int = Field(description="examples that were scored")
    first: str
    last: str
    validation_from: str | None
    test_from: str | None = Field(description="first step that was scored; null: all of them were")
    held_out: bool = Field(
        description="whether the scored rows are known to lie behind everything the bundle was made of"
    )
    train_rows: int = Field(description="examples that the baselines were fitted to; 0: none could be")
    validation_rows: int


class Measured(_Part):
    """The whole."""

    format: Literal[1] = 1
    bundle: str = Field(description="version")
    label: str = Field(description="the rule, in words")
    held: Held
    notes: tuple[str, ...] = Field(description="what a reader must know, one sentence each")
    replicates: int
    seed: int
    level: float = Field(description="of all intervals")
    flag: Flag | None
    forecast: Forecast | None
    interval: Interval | None
    periods: tuple[Period, ...]
    verdicts: tuple[Verdict, ...]

    def better_than_all(self, part: Part) -> bool | None:
        """Whether the bundle is better than every baseline of the part; None if there is none."""
        own = [verdict.outcome for verdict in self.verdicts if verdict.part == part]
        return all(outcome == "better" for outcome in own) if own else None


def outcome(metric: str, difference: Number) -> Outcome:
    """What a difference says of the bundle; of a score that is neither better nor worse: the same, or nothing."""
    if difference.low is None or difference.high is None:
        return "not told apart"
    if difference.low == difference.high == 0:
        return "the same"
    if METRICS[metric].better == "neither" or difference.low <= 0 <= difference.high:
        return "not told apart"
    return "better" if (difference.low > 0) == (METRICS[metric].better == "higher") else "worse"


def known(number: float) -> float | None:
    """The number, or None when it is not finite: JSON has no word for that."""
    return float(number) if math.isfinite(number) else None
