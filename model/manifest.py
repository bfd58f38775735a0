"""bundle.json: what a model is, how it was made and how good it was on data it had never seen."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

GOLDEN_ROWS = 64  # at most; the smallest padded size, so that the check compiles nothing of its own

Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FieldName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^,\x00-\x1f\x7f]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class LabelRule(_Part):
    """What `falling` meant in training (labels.py)."""

    rule: Literal["given", "regime"]
    look_ahead: int = Field(ge=1, description="later steps the label or the target uses: the gap before each border")


class Thresholds(_Part):
    """Falling turns on at a probability >= falling_on, off at one < falling_off."""

    falling_on: Probability
    falling_off: Probability

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.falling_off > self.falling_on:
            raise ValueError("falling_off must not be above falling_on")
        return self


class Calibration(_Part):
    """logit(probability) = slope * logit(network as trained) + intercept; already folded into the weights."""

    method: Literal["identity", "platt"]
    slope: float = Field(gt=0)
    intercept: float


class Interval(_Part):
    """forecast + low * scale .. forecast + high * scale holds the next value with probability `level`."""

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

    seed: int
    epochs: int = Field(ge=1)
    examples: int = Field(ge=1)


class Manifest(_Part):
    """The content of bundle.json."""

    format: Literal[1] = 1
    version: str = Field(pattern=r"^(\d{4}-\d{2}-\d{2}T\d{6}Z-[0-9a-f]{6})?$")
    window: int = Field(ge=2, le=4096, description="steps the network sees")
    min_history: int = Field(ge=2, le=4096, description="values a stock must have before it is predicted")
    fields: tuple[FieldName, ...] = Field(max_length=64, description="extra channels, in order")
    units: int = Field(ge=1, le=1024)
    label: LabelRule
    thresholds: Thresholds
    calibration: Calibration
    interval: Interval
    metrics: Evaluation
    data: Data
    training: Training
    libraries: dict[str, str]
    golden_rows: int = Field(ge=1, le=GOLDEN_ROWS)
    files: dict[Literal["weights.npz", "golden.npz"], Digest]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.min_history != self.window:
            raise ValueError("min_history must equal window: the network sees whole windows only")
        if len(set(self.fields)) != len(self.fields):
            raise ValueError("fields must be different names")
        return self

    def sealed(self, files: dict[str, str], now: datetime | None = None) -> Manifest:
        """A copy with the checksums and the version: the time, and six digits of a hash over everything else in it."""
        bare = Manifest.model_validate({**self.model_dump(), "version": "", "files": files})
        digest = hashlib.sha256(bare.model_dump_json().encode()).hexdigest()[:6]
        stamp = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H%M%SZ")
        return bare.model_copy(update={"version": f"{stamp}-{digest}"})
