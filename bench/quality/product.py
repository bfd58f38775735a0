"""What the product itself says: `train` to a bundle as a user would, then the Predictor that the service runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model import examples
from model.predictor import Predictions, Predictor
from model.train import train

if TYPE_CHECKING:
    from model.dataset import Table
    from model.examples import Examples, Split
    from model.inputs import Inputs
    from model.manifest import LabelRule
    from model.train import Recipe


@dataclass(frozen=True)
class Said:
    """A bundle's answers on the validation and the test part, each in the order of its examples."""

    validation: Predictions
    test: Predictions


def asked(table: Table, recipe: Recipe) -> Said:
    """Train in a folder that is gone afterwards, and ask about what was held out."""
    with tempfile.TemporaryDirectory(prefix="downtick-quality-") as folder:
        out = Path(folder) / "bundle"
        train(table, recipe, out)
        return loaded(out, table, recipe.label, recipe.borders)


def loaded(path: Path, table: Table, rule: LabelRule, borders: tuple[int, int] | None) -> Said:
    """The same of a bundle that is there already."""
    predictor = Predictor.load(path, threads=1)
    validation, test = held_out(split(table, rule, predictor.inputs, borders))
    return Said(_predictions(predictor, validation), _predictions(predictor, test))


def split(table: Table, rule: LabelRule, inputs: Inputs, borders: tuple[int, int] | None) -> Split:
    """The examples as `train` splits them."""
    return examples.split(examples.make(table, rule, inputs), table, rule, borders)


def held_out(parts: Split) -> tuple[Examples, Examples]:
    """Validation and test."""
    assert parts.validation is not None  # noqa: S101  the measurements' borders see to it
    assert parts.test is not None  # noqa: S101
    return parts.validation, parts.test


def _predictions(predictor: Predictor, part: Examples) -> Predictions:
    found = [predictor.predict(part.windows(rows)) for rows in part.chunks()]
    return Predictions(*(np.concatenate(column) for column in zip(*(vars(one).values() for one in found), strict=True)))
