"""The reference's model: the bundle's files, features by hand, and the Keras network itself.

`features` follows the formula in model/features.py's docstring, one window at a time; where floats would overflow or
lose steps it works in exact fractions. Neither the predictor nor the compiled forward pass has a part in it."""

import itertools
import json
import math
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.reference import Outlook

DEFAULT = Path(__file__).parents[2] / "model" / "bundles" / "default"
LARGEST, SMALLEST = sys.float_info.max, sys.float_info.min


class KerasModel:
    """A bundle folder, read with json and numpy alone; its weights in the Keras network of model/network.py."""

    def __init__(self, folder: Path = DEFAULT) -> None:
        manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        self.version: str = manifest["version"]
        self.window: int = manifest["window"]
        self.reach: int = manifest["min_history"]
        self.min_history: int = manifest["min_history"]
        self.channels: tuple[str, ...] = tuple(manifest["channels"])
        if self.channels[0] != "value" or any("." in channel for channel in self.channels):
            raise ValueError("the reference knows levels only: the value, then the fields")
        self.fields: tuple[str, ...] = self.channels[1:]
        self.falling_on: float = manifest["thresholds"]["falling_on"]
        self.falling_off: float = manifest["thresholds"]["falling_off"]
        self._interval: tuple[float, float] = (manifest["interval"]["low"], manifest["interval"]["high"])
        with np.load(folder / "weights.npz", allow_pickle=False) as weights:
            self._weights = dict(weights)
        self._network: dict[str, object] = manifest["network"]
        self._lock = threading.Lock()  # scenarios are proven in several threads

    def outlooks(self, windows: list[list[tuple[float, ...]]]) -> list[Outlook]:
        if not windows:
            return []
        # Keras takes seconds to import, and only this needs it.
        from model import network  # noqa: PLC0415
        from model.inputs import Inputs  # noqa: PLC0415
        from model.manifest import Architecture  # noqa: PLC0415

        seen = [features(window) for window in windows]
        x = np.array([steps for steps, _, _ in seen], np.float64).astype(np.float32)
        with self._lock:
            inputs, architecture = Inputs(self.window, self.channels), Architecture.model_validate(self._network)
            probabilities, changes = network.run(inputs, architecture, self._weights, x)
        low, high = self._interval
        found = []
        for window, (_, scale, spread), probability, change in zip(
            windows, seen, probabilities.tolist(), changes.tolist(), strict=True
        ):
            last = window[-1][0]
            found.append(
                Outlook(
                    probability=probability,
                    forecast=moved(last, change, scale),
                    low=moved(last, change + low * spread, scale),
                    high=moved(last, change + high * spread, scale),
                    scale=float(min(max(scale, Fraction(SMALLEST)), Fraction(LARGEST))),
                )
            )
        return found


def features(window: list[tuple[float, ...]]) -> tuple[list[tuple[float, ...]], Fraction | float, float]:
    """What the network sees, (steps, channels); the scale of the value, exact where a float could not hold it; and its
    spread in scales."""
    columns, scales, spreads = [], [], []
    for channel in zip(*window, strict=True):
        column, scale, spread = _channel(channel)
        columns.append(column)
        scales.append(scale)
        spreads.append(spread)
    return list(zip(*columns, strict=True)), scales[0], spreads[0]


def _channel(values: tuple[float, ...]) -> tuple[list[float], Fraction | float, float]:
    largest = max(abs(value) for value in values)
    if 1e-200 < largest < 1e200:
        return _scaled(list(values), largest)
    exact = [Fraction(value) for value in values]
    column, scale, spread = _scaled(exact, max(abs(value) for value in exact))
    return [float(step) for step in column], scale, spread


def _scaled(values: list[Any], largest: Any) -> tuple[list[Any], Any, float]:  # floats or fractions
    steps = [abs(after - before) for before, after in itertools.pairwise(values)]
    total = sum if isinstance(largest, Fraction) else math.fsum
    cap = 4 * total(steps) / len(steps)
    counted = [min(step, cap) for step in steps]
    scale = max(total(counted) / len(steps), largest / 1_000_000)
    weights = [type(cap)(0.94**back) for back in range(len(steps) - 1, -1, -1)]
    young = total(weight * step for weight, step in zip(weights, counted, strict=True)) / total(weights)
    spread = float(max(young, largest / 1_000_000) / scale) if scale else 1.0
    return [(value - values[-1]) / scale if scale else scale for value in values], scale, spread


def moved(last: float, change: float, scale: Fraction | float) -> float:
    """`change` scales away from `last`; at most the largest float; NaN for a change that is no number."""
    if not math.isfinite(change):
        return math.nan
    exact = Fraction(last) + Fraction(change) * Fraction(scale)
    return float(max(-Fraction(LARGEST), min(exact, Fraction(LARGEST))))
