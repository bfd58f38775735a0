"""What the network sees, declared: a window of steps, and channels made of the value and of named fields.

A channel is `NAME` or `NAME.KIND`. NAME is `value`, or a field that every update then has to carry. Of a window w
that ends now, with the series' own scale (features.py), channel x at step t is:

    level (when no kind is named)   (w[t] - w[now]) / scale
    change                          (w[t] - w[t-1]) / scale
    return                          100 * (w[t] - w[t-1]) / max(|w[t-1]|, |w[t]|): percent, whatever the scale
    mean5   (2 to 512)              (mean(w[t-4 .. t]) - w[t]) / scale
    volatility8  (2 to 512)         mean(|w[i] - w[i-1]| for i = t-7 .. t) / scale - 1

All but the level are cut to ±32. A channel that looks back past the window makes the model reach further back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

LONGEST = 4096  # values that a model may reach back
MOST_CHANNELS = 64
_KIND = re.compile(r"(level|change|return|mean|volatility)([1-9][0-9]*)?")
_NAME = re.compile(r"[^,\x00-\x1f\x7f]{1,64}")
_SPANNED = ("mean", "volatility")


@dataclass(frozen=True)
class Channel:
    """One channel: `kind` of the series `name`; `span` in steps for a mean or a volatility, else 0."""

    name: str
    kind: str
    span: int

    @classmethod
    def parse(cls, text: str) -> Channel:
        """The channel that a text declares. Raises: ValueError, one line that says what is allowed."""
        name, dot, end = text.rpartition(".")
        found = _KIND.fullmatch(end) if dot else None
        kind, span = (found[1], int(found[2] or 0)) if found else ("level", 0)
        if found is None:
            name = text
        if not _NAME.fullmatch(name) or name != name.strip():
            raise ValueError(f"channel {text!r}: a name has 1 to 64 characters and no comma")
        if (kind in _SPANNED) != (2 <= span <= 512):
            raise ValueError(
                f"channel {text!r}: must be NAME, NAME.change, NAME.return, NAME.meanN or NAME.volatilityN, N 2 to 512"
            )
        return cls(name, kind, span)

    @property
    def behind(self) -> int:
        """Values that the channel's oldest step needs from before the window."""
        return {"level": 0, "change": 1, "return": 1, "mean": self.span - 1, "volatility": self.span}[self.kind]


@dataclass(frozen=True)
class Inputs:
    """What a network sees: `window` steps of `channels`.

    Raises: ValueError for a window below 2, no channel, one named twice, one that cannot be read, or a reach > 4096.
    """

    window: int
    channels: tuple[str, ...] = ("value",)

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError("the window must have at least 2 steps")
        if not 1 <= len(self.channels) <= MOST_CHANNELS:
            raise ValueError(f"a model has 1 to {MOST_CHANNELS} channels, not {len(self.channels)}")
        if len(set(self.parsed)) != len(self.channels):
            raise ValueError(f"channels must be different: {', '.join(self.channels)}")
        if self.reach > LONGEST:
            raise ValueError(f"a model may reach back {LONGEST} values at most, this one needs {self.reach}")

    @cached_property
    def parsed(self) -> tuple[Channel, ...]:
        """The channels, read."""
        return tuple(Channel.parse(text) for text in self.channels)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that every update must carry, in order of mention: columns 1, 2, … of a raw window."""
        return tuple(dict.fromkeys(channel.name for channel in self.parsed if channel.name != "value"))

    @property
    def columns(self) -> int:
        """Columns of a raw window: the value and each field."""
        return 1 + len(self.fields)

    @cached_property
    def reach(self) -> int:
        """Values of a stock that are needed to see it once."""
        return self.window + max(channel.behind for channel in self.parsed)
