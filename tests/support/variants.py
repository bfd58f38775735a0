"""Other versions of the bundle that ships, made in a moment: no training, but whole, sealed, and sound by Keras."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from model import bundle, network
from model.features import features
from model.inputs import Inputs
from model.manifest import Architecture
from tests.support.reference_model import DEFAULT

ROWS = 16


def shipped(folder: Path) -> str:
    """Write the very bundle that ships; its version."""
    shutil.copytree(DEFAULT, folder)
    return bundle.load(folder).manifest.version


def variant(
    folder: Path,
    *,
    seed: int,
    window: int | None = None,
    fields: tuple[str, ...] = (),
    units: int | None = None,
    restless: float = 0.1,
    **changes: Any,
) -> str:
    """Write the bundle `folder`; its version.

    Of the same shape, its weights are the shipped ones, each a little off; of another, random ones. `restless` is how
    far its forecasts are from the last value; `changes` are entries of the manifest."""
    random = np.random.default_rng(seed)
    shipped = bundle.load(DEFAULT)
    inputs = Inputs(window or shipped.manifest.window, ("value", *fields))
    shape = shipped.manifest.network
    architecture = Architecture(kind=shape.kind, units=units or shape.units, members=shape.members)
    if (inputs, architecture) == (shipped.manifest.inputs, shape):
        weights = {
            name: (array * random.normal(1, 0.1, array.shape)).astype(np.float32)
            for name, array in shipped.weights.items()
        }
        kernel = weights["change_kernel"]  # of zeros, where the shipped one does not beat "no change"
        weights["change_kernel"] = kernel + random.normal(0, restless, kernel.shape).astype(np.float32)
    else:
        shapes = network.shapes(inputs, architecture)
        weights = {name: random.normal(0, 0.3, of).astype(np.float32) for name, of in shapes.items()}
    moves = random.normal(0, 0.01, (ROWS, inputs.reach, inputs.columns))
    windows = 100 * np.exp(np.cumsum(moves, axis=1))
    x = features(windows, inputs).x
    probability, change = network.run(inputs, architecture, weights, x)
    manifest = shipped.manifest.model_copy(
        update={
            "window": inputs.window,
            "channels": inputs.channels,
            "min_history": inputs.reach,
            "network": architecture,
            "golden_rows": ROWS,
            **changes,
        }
    )
    golden = {"windows": windows, "x": x, "probability": probability, "change": change}
    return bundle.write(folder, manifest, weights, golden).version
