"""How far a probability is to be believed, decided where the network had not learnt.

    logit(shown) = logit(base) + belief * (logit(said) - logit(base))         0 <= belief <= 1

One number per learner, the one with the lowest log loss on the blocks that were held out of training in turn. Between
knowing nothing (0: the base rate) and taking the learner at its word (1); it never turns an answer round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model import scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = np.linspace(0, 1, 101)


def belief(label: NDArray[np.float32], said: NDArray[np.float64], base: float) -> float:
    """The best belief on held-out rows; said (n,) probabilities, base: the share of falling in training."""
    return float(min(STEPS, key=lambda share: float(scores.losses(label, shown(said, base, float(share))).mean())))


def shown(said: NDArray[np.float64], base: float, share: float) -> NDArray[np.float64]:
    """Probabilities with that much belief in them; (n,)."""
    start = _logit(np.asarray(base))
    return np.asarray(1 / (1 + np.exp(-(start + share * (_logit(said) - start)))))


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(p, scores.CERTAIN, 1 - scores.CERTAIN)
    return np.asarray(np.log(kept / (1 - kept)))
