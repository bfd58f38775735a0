"""One assigned partition: its history, where it stands in the log, and what Redis is known to hold of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.outputs import PredictionEncoder
    from state.history import History
    from state.layout import Delta, Meta


class Standing(Enum):
    """What the engine may do with a partition."""

    WAITING = "waiting to be seated"
    SEATED = "seated"
    STOPPED = "stopped"  # only an operator can go on; the log line said how


@dataclass
class Partition:
    """Owned by the engine thread. All but `number` is meaningful only once seated."""

    number: int
    standing: Standing = Standing.WAITING
    why: str = ""  # it waits or is stopped
    hidden_since: float | None = None  # since when its committed offset cannot be had
    tried: float = 0.0  # when it was last tried to seat it
    history: History = field(init=False)
    encoder: PredictionEncoder = field(init=False)
    model_from: int = 0  # the active version predicts from this offset on; what is before it may be another's
    next_offset: int = 0  # the next record to take; our own bookkeeping
    output_from: int = 0  # records below it are folded without output
    committed: int | None = None  # the group's next offset as we know it
    stored: Meta | None = None  # what Redis holds, by our last word with it
    target: Meta = field(init=False)  # what it shall hold: generation and all but the watermark
    delta: Delta | None = None  # folded and committed, not yet known to be in Redis
    rejected: int = 0  # consecutive dead letters, late ones aside
    breaker_open: bool = False
    conflicts: int = 0  # writes in a row that found somebody else's state
    staging: str = ""  # a generation that is being written as a whole, by a try that was cut short
    retired: list[str] = field(default_factory=list)  # generations in Redis to delete in the background
    adrift: bool = False  # the consumer may stand elsewhere than next_offset: seek before the next take

    log_end: int = 0  # the end of the log, where it was reached: control records lie between next_offset and it

    def drift(self) -> None:
        """What was handed out since next_offset is dropped: come back to it."""
        self.adrift, self.log_end = True, 0

    def adopt(self, version: str, encoder: PredictionEncoder) -> None:
        """Another version predicts from the next record on; rings, flags and pending forecasts stay."""
        self.encoder, self.model_from = encoder, self.next_offset
        self.target = replace(self.target, model=version)

    @property
    def reached(self) -> int:
        """Up to where nothing is left to take; lag counts from here."""
        return max(self.next_offset, self.log_end)

    @property
    def active(self) -> bool:
        """Whether its records are taken."""
        return self.standing is Standing.SEATED and not self.breaker_open

    @property
    def watermark(self) -> int:
        """Offset of the last record folded."""
        return self.next_offset - 1

    @property
    def restoring(self) -> bool:
        """Whether it folds without output still."""
        return self.standing is Standing.SEATED and self.next_offset < self.output_from

    @property
    def owed(self) -> int:
        """The next offset that the group should have committed."""
        return max(self.next_offset, self.output_from)

    @property
    def applied(self) -> bool:
        """Whether Redis holds all that was folded, and names the model."""
        stored = self.stored
        return (
            self.delta is None
            and stored is not None
            and (stored.generation, stored.watermark, stored.rejected, stored.model)
            == (self.target.generation, self.watermark, self.rejected, self.target.model)
        )
