"""The loaded model: windows in, probabilities and forecasts out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model import bundle, versions
from model.bundle import BadBundle
from model.features import features, to_values
from model.forward import BATCH_SIZES, forward_for, padded
from model.runtime import default_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "default"
TOLERANCE = 1e-5  # between the compiled function and Keras, relative above 1


@dataclass(frozen=True)
class Predictions:
    """One row per window, in the order of the windows; all arrays (n,).

    A network output that is not finite comes back as it is (the forecast and its interval as NaN).
    """

    probability: NDArray[np.float32]  # of falling, 0..1
    forecast: NDArray[np.float64]  # the next value, in the value's own unit
    low: NDArray[np.float64]  # the bundle's interval around it: low <= forecast <= high
    high: NDArray[np.float64]
    scale: NDArray[np.float64]  # the window's own scale (features.py), > 0 and finite: what errors are measured in


class Predictor:
    """A bundle, ready to predict.

    version: the bundle's; inputs: what the network sees (inputs.py), of which window, reach and fields are told here
    too; min_history = reach: values a stock must have; a stock turns falling when its probability is at or above
    `falling_on`, and back when it is below `falling_off` (both exact as float32).

    One caller at a time; with many rows it spreads them over `threads` threads of its own. A row's result does not
    depend on the other rows, on their number or on the number of threads, bit for bit.
    """

    def __init__(self, content: bundle.Bundle, *, threads: int | None = None) -> None:
        """Raises: BadBundle if the compiled network does not reproduce the bundle's golden outputs."""
        manifest = content.manifest
        self.manifest = manifest
        self.version: str = manifest.version
        self.inputs = inputs = manifest.inputs
        self.window: int = inputs.window
        self.reach: int = inputs.reach
        self.min_history: int = manifest.min_history
        self.fields: tuple[str, ...] = inputs.fields
        self.falling_on: float = manifest.thresholds.falling_on
        self.falling_off: float = manifest.thresholds.falling_off
        self.batch_sizes: tuple[int, ...] = BATCH_SIZES
        self._threads = default_threads() if threads is None else max(1, threads)
        self._pool = ThreadPoolExecutor(self._threads, "predict") if self._threads > 1 else None
        self._forward = forward_for(inputs, manifest.network)
        self._weights = self._forward.fold(content.weights)
        self._check(content)

    @classmethod
    def load(cls, path: Path | str = DEFAULT_BUNDLE, *, threads: int | None = None) -> Predictor:
        """The bundle at `path`, or the one that counts in a folder of versions, verified in full.

        The first one takes about 3 s, mostly TensorFlow.
        Args:
            threads: for many rows; as many as there are cores, two at most, when not given.
        Raises: BadBundle, one line.
        """
        return cls(bundle.load(versions.resolve(Path(path))), threads=threads)

    @property
    def traces(self) -> int:
        """How often the forward pass was traced; once warm it stays at len(batch_sizes)."""
        return self._forward.traces

    def warm(self) -> None:
        """Compile every padded size, so that no later call has to."""
        for size in self.batch_sizes:
            self._forward.compile(size, self._weights)

    def predict(self, windows: NDArray[np.float64]) -> Predictions:
        """Predictions for n windows.

        Args:
            windows: (n, >= reach, 1 + len(fields)) float64, finite, oldest first; n may be 0. Not changed, not kept. Of
                longer ones the newest `reach` values are used.
        Raises: ValueError on another shape.
        """
        n, columns = len(windows), self.inputs.columns
        if windows.ndim != 3 or windows.shape[1] < self.reach or windows.shape[2] != columns:
            raise ValueError(f"windows must be (n, {self.reach} or more, {columns}), got {windows.shape}")
        windows = windows[:, -self.reach :]
        result = Predictions(np.empty(n, np.float32), *(np.empty(n, np.float64) for _ in range(4)))
        parts = chunks(n, self._threads)
        if self._pool is None or len(parts) == 1:
            for part in parts:
                self._predict_part(windows, part, result)
        else:
            # list() so that an exception of any part reaches the caller
            list(self._pool.map(lambda part: self._predict_part(windows, part, result), parts))
        return result

    def _predict_part(self, windows: NDArray[np.float64], part: tuple[int, int, int], into: Predictions) -> None:
        start, stop, size = part
        seen = features(windows[start:stop], self.inputs)
        probability, change = self._forward(padded(seen.x, size), self._weights)[:, : stop - start]
        interval = self.manifest.interval
        into.probability[start:stop] = probability
        changes = change.astype(np.float64) + np.array([[0.0], [interval.low], [interval.high]]) * seen.spread
        into.forecast[start:stop], into.low[start:stop], into.high[start:stop] = to_values(changes, seen)
        into.scale[start:stop] = seen.scale

    def _check(self, content: bundle.Bundle) -> None:
        """Golden windows must give the features and the outputs that training and Keras gave when it was written."""
        golden = content.golden
        x = features(golden["windows"], self.inputs).x
        probability, change = self._forward.all(x, self._weights)
        for name, ours in {"x": x, "probability": probability, "change": change}.items():
            error = np.abs(ours - golden[name]) / np.maximum(1.0, np.abs(golden[name]))
            if not np.all(error <= TOLERANCE):  # NaN fails too
                raise BadBundle(
                    f"{content.path}: golden.npz: {name} of the golden windows is off by {np.max(error):.2g} (allowed "
                    f"{TOLERANCE:g}): the service would not compute here what was computed when it was written"
                )


def chunks(n: int, threads: int, sizes: tuple[int, ...] = BATCH_SIZES) -> list[tuple[int, int, int]]:
    """How n rows are cut: (start, stop, padded size) of each part, in order.

    Large parts are the cheapest per row, so they come first; what is left after the last full round of all threads is
    cut finer, so that no thread waits long for another. Padding at most doubles a part, or fills the smallest.
    """
    parts: list[tuple[int, int, int]] = []
    start = 0
    whole = n - n % (sizes[-1] * threads)
    fine = sizes if threads == 1 else sizes[:-1]
    while start < n:
        left = n - start
        size = sizes[-1] if start < whole else next(s for s in reversed(fine) if left > s // 2 or s == fine[0])
        parts.append((start, min(n, start + size), size))
        start += size
    return parts
