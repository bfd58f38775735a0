"""Forecasts that learn from one series alone: naive, drift, exponential smoothing and the Theta method.

A forecast made at step s uses the values up to s and is of the value s + 1. AutoETS and AutoTheta (statsforecast) are
fitted once, on the values before the border, and then move forward step by step with the parameters they found:

    values   ········ fit ········ | border ···· s | s+1
                                     '-- state --'   '- forecast

Source of drift: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.2.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from model.extras import extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 1000  # values before the border that are fitted to: about four years of days
LEAST = 30  # values before the border below which nothing is fitted
MOST_STEPS = 1000  # behind the border, of a stock: Theta's forecasts cost more with every step

Kind = Literal["ets", "theta"]


def drift(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last value plus the mean change from the first value to it; (len,), entry s is of the value s + 1."""
    steps = np.arange(len(values))
    return np.asarray(values + (values - values[:1]) / np.maximum(steps, 1))


def ahead(values: NDArray[np.float64], border: int, kind: Kind) -> NDArray[np.float64] | None:
    """One-step-ahead forecasts made at the steps border, border + 1, …, at most MOST_STEPS of them.

    Args:
        values: (len,) float64, oldest first.
        border: the first step that is not fitted to.
    Returns: (steps,) float64, finite; None when there is too little to fit to, or the method cannot be fitted.
    """
    begin, stop = max(0, border - LONGEST), min(len(values), border + MOST_STEPS)
    if border - begin < LEAST or stop <= border:
        return None
    models = extra("statsforecast.models")
    model = models.AutoETS(season_length=1) if kind == "ets" else models.AutoTheta(season_length=1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model.fit(values[begin:border])
            found = _forward(model, values[begin:stop], border - begin, kind)
        except Exception:  # noqa: BLE001 - statsforecast raises bare ones for series it cannot fit
            return None
    return found if np.isfinite(found).all() else None


def _forward(model: Any, values: NDArray[np.float64], border: int, kind: Kind) -> NDArray[np.float64]:
    if kind == "theta" and model.model_["modeltype"] in {"STM", "OTM"}:
        # The static variants draw one trend line through all the values they are given: their in-sample forecasts
        # know the future. So each step is given its own past only.
        return np.array([model.forward(values[: s + 1], h=1)["mean"][0] for s in range(border, len(values))])
    found = model.forward(values, h=1, fitted=True)
    return np.append(found["fitted"], found["mean"])[border + 1 :]
