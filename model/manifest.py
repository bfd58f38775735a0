"""bundle.json: what a model is, how it was made and how good it was on data it had never seen."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.inputs import LONGEST, MOST_CHANNELS, Inputs

GOLDEN_ROWS = 64  # at most; the smallest padded size, so that the check compiles nothing of its own

Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ChannelText = Annotated[str, Field(min_length=1, max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Architecture(_Part):
    """The network (network.py): which one, how wide, and how many of it are averaged."""

    kind: Literal["lstm", "dense"] = "lstm"
    units: int = Field(
        default_factory=lambda known: 100 if known.get("kind") == "dense" else 32,
        ge=1,
        le=1024,
        description="of the LSTM, or of each dense layer",
    )
    direct: bool = Field(
        default_factory=lambda known: known.get("kind") == "lstm",
        description="whether the heads also see the window itself, through a linear path beside the network",
    )
    members: int = Field(default=1, ge=1, le=16, description="networks whose logits and changes are averaged")


class LabelRule(_Part):
    """What `falling` meant in training (labels.py)."""

    rule: Literal["given", "regime", "drop"]
    # At most what --look-ahead takes: whatever is added to a step must stay an int64.
    look_ahead: int = Field(ge=1, le=1_000_000, description="later steps that the label or the target uses")
    threshold: float | None = Field(default=None, ge=0, le=1, description="of `drop`: 0.005 is half a percent down")
    dead_zone: float | None = Field(
        default=None, description="of `drop`: changes in (-threshold, dead_zone) are neither"
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if (self.rule == "drop") != (self.threshold is not None):
            raise ValueError("a threshold belongs to the rule drop, and to it only")
        if self.dead_zone is not None and (self.threshold is None or not -self.threshold < self.dead_zone <= 1):
            raise ValueError("a dead zone belongs to the rule drop, and reaches from -threshold to at most 1")
        return self


class Thresholds(_Part):
    """Falling turns on at a probability >= falling_on, off at one < falling_off."""

    falling_on: Probability
    falling_off: Probability
    wanted_precision: Probability | None = Field(
        default=None, description="share of the flagged steps that should be falling; None: nothing was held out"
    )
    precision: Probability | None = Field(default=None, description="what the flag reached on the validation part")
    recall: Probability | None = Field(default=None, description="share of the falling steps it flagged there")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.falling_off > self.falling_on:
            raise ValueError("falling_off must not be above falling_on")
        return self


class Calibration(_Part):
    """logit(probability) = slope * logit(network as trained) + intercept; already folded into the weights."""

    method: Literal["identity", "platt", "temperature"]
    slope: float = Field(gt=0)
    intercept: float
    change_shrink: float = Field(
        default=1.0, ge=0, le=1, description="change = change_shrink * network as trained; folded into the weights too"
    )


class Interval(_Part):
    """forecast + low * spread .. forecast + high * spread holds the next value with probability `level`.

    A window's spread (features.py) is the mean of its absolute steps in which younger ones weigh more."""

    level: float = Field(gt=0, lt=1)
    low: float = Field(le=0)
    high: float = Field(ge=0)
    source: Literal["held-out residuals", "moves of the training data"]


class Metrics(_Part):
    """Of one stretch of time; errors in the window's own scale. None where the stretch cannot tell."""

    first: str = Field(description="time of the first window's last step")
    last: str
    examples: int = Field(ge=0)
    labelled: int = Field(ge=0)
    base_rate: Probability | None = Field(description="share of falling; a constant forecast's probability")
    auc: Probability | None
    slope_auc: Probability | None = Field(description="AUC of the trailing 8-step slope: the baseline")
    brier: Probability | None
    base_brier: Probability | None = Field(description="Brier score of always saying the base rate")
    log_loss: float | None
    mcc: float | None = Field(description="Matthews correlation of the flag, hysteresis included")
    flips_per_1000: float | None = Field(description="changes of the flag per 1000 steps")
    mae: float | None
    naive_mae: float | None = Field(description="of the forecast 'no change'")
    coverage: Probability | None = Field(
        description="share of next values inside the interval; of validation, which set it"
    )


class Evaluation(_Part):
    """How good it was. Validation chose (epochs, thresholds, calibration, interval); test chose nothing."""

    held_out: bool
    note: str
    train: Metrics
    validation: Metrics | None
    test: Metrics | None


class Parts(_Part):
    """How training, validation and test were told apart (examples.py)."""

    by: Literal["time", "stock", "nothing"]
    validation_from: str | None = Field(default=None, description="first step of validation, as the table writes it")
    test_from: str | None = Field(default=None, description="first step of the test part")
    gap: int = Field(ge=0, description="steps left out before each border")


class Data(_Part):
    """What it was trained on, so that anyone can tell whether they have the same."""

    files: tuple[str, ...]
    sha256: Digest = Field(description="of the files' bytes, decompressed, in order")
    stocks: int = Field(ge=1)
    rows: int = Field(ge=1)
    value: str = Field(description="the column, or `steps` for a wide table")
    first: str
    last: str


class Training(_Part):
    """How it was fitted; the same data, settings, seed and library versions give the same weights."""

    seed: int = Field(description="of the first member; the next ones have the numbers after it")
    epochs: tuple[int, ...] = Field(min_length=1, description="of each member")
    examples: int = Field(ge=1)
    workers: int = Field(ge=1, description="processes that trained together")
    interrupted: bool = Field(default=False, description="stopped by hand: the best so far")


class Manifest(_Part):
    """The content of bundle.json."""

    format: Literal[2] = 2
    version: str = Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}Z-[0-9a-f]{6})?$")
    window: int = Field(ge=2, le=LONGEST, description="steps the network sees")
    channels: tuple[ChannelText, ...] = Field(min_length=1, max_length=MOST_CHANNELS, description="see inputs.py")
    min_history: int = Field(ge=2, le=LONGEST, description="values a stock must have before it is predicted")
    network: Architecture
    label: LabelRule
    thresholds: Thresholds
    calibration: Calibration
    interval: Interval
    metrics: Evaluation
    parts: Parts
    data: Data
    training: Training
    libraries: dict[str, str]
    golden_rows: int = Field(ge=1, le=GOLDEN_ROWS)
    files: dict[Literal["weights.npz", "golden.npz"], Digest]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.min_history != self.inputs.reach:  # `inputs` refuses channels that cannot be
            raise ValueError(f"min_history must be {self.inputs.reach}: what the window and its channels reach back")
        return self

    @cached_property
    def inputs(self) -> Inputs:
        """What the network sees."""
        return Inputs(self.window, self.channels)

    def sealed(self, files: dict[str, str], now: datetime | None = None) -> Manifest:
        """A copy with the checksums and the version: the time, and the digest of everything else in it."""
        bare = Manifest.model_validate({**self.model_dump(), "version": "", "files": files})
        stamp = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H%M%SZ")
        return bare.model_copy(update={"version": f"{stamp}-{bare.digest}"})

    @property
    def digest(self) -> str:
        """Six digits of a hash over everything but the version, which ends in them: that the content is the version's.

        No proof against intent, who can make a version of their own anyway. Entries that a file does not have are left
        out: one that was written before there were such keeps its digest.
        """
        bare = self.model_copy(update={"version": ""})
        return hashlib.sha256(bare.model_dump_json(exclude_unset=True).encode()).hexdigest()[:6]
