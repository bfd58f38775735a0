"""Was it falling? Of a window that reaches past the step in question: what training asks of a whole series
(labels.py), asked of one window at a time, so that the service can score itself on what it has in memory.

    v:  . . [ s-N+1 ............ s ] ... s+H       H: the steps that the rule looks ahead
              what the network saw    what came since"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model import labels
from model.labels import HALF, THRESHOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.manifest import LabelRule

_TIMES = np.arange(-HALF, HALF + 1.0)
_SLOPE = _TIMES / (_TIMES @ _TIMES)


def horizon(rule: LabelRule) -> int:
    """Steps after which the rule can be answered; 0: never, because its answer came from outside (`given`)."""
    return 0 if rule.rule == "given" else labels.LOOK_AHEAD[rule.rule]


def values_needed(rule: LabelRule, window: int) -> int:
    """Values, up to `horizon` after the step in question, that `truth` takes; 0 for `given`."""
    return {"given": 0, "regime": max(window, HALF + 1) + HALF, "drop": 2}[rule.rule]


def truth(values: NDArray[np.float64], rule: LabelRule, window: int) -> NDArray[np.float32]:
    """1 where the stock was falling `horizon` steps before the last value, 0 where not, NaN where nobody can say; (n,).

    Equals the label that training gives that step (labels.regime, labels.drop).

    Args:
        values: (n, values_needed or more), oldest first.
        window: steps that the network saw; `regime` measures in their mean step.
    Raises: ValueError when there are fewer values."""
    needed = values_needed(rule, window)
    if values.shape[1] < needed:
        raise ValueError(f"{rule.rule} needs {needed} values of a window of {window}, got {values.shape[1]}")
    if rule.rule == "drop":
        return labels.drop(values[:, -2], values[:, -1], rule.threshold or 0.0, rule.dead_zone)
    if rule.rule == "given":
        return np.full(len(values), np.nan, np.float32)
    values = values[:, -needed:]
    logged = np.log(values) if (values > 0).all() else labels.logs(values)  # the same, in a quarter of the time
    slope = logged[:, -len(_SLOPE) :] @ _SLOPE
    seen = logged[:, -HALF - window : -HALF]
    step = np.abs(seen[:, 1:] - seen[:, :-1]).mean(axis=1)
    known = np.isfinite(slope) & np.isfinite(step)
    with np.errstate(invalid="ignore"):
        falling = known & (step > 0) & (slope < THRESHOLD * step)
    return np.where(known, falling, np.nan).astype(np.float32)
