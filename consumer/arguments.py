"""Types of command-line arguments whose errors say what was expected."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def inside(low: float, high: float = math.inf) -> Callable[[str], float]:
    """A type of finite numbers above `low`, and below `high` if given."""
    bounds = f"above {low:g}" if high == math.inf else f"above {low:g} and below {high:g}"

    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not low < found < high:
            raise argparse.ArgumentTypeError(f"must be a number {bounds}, not {text!r}")
        return found

    return number


def between(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type of whole numbers from `least` up, to `most` if given."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= (most or math.inf)):
            raise argparse.ArgumentTypeError(f"must be a whole number, {bounds}, not {text!r}")
        return int(text)

    return number


positive, fraction = inside(0), inside(0, 1)
whole, port = between(1), between(1, 65_535)
seed = between(0, 2**31 - 1)  # what NumPy, Keras and LightGBM take, with room for those of an average's other members


def names(text: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def check_outside(out: Path, bundle: Path) -> None:
    """A file in a bundle's own folder makes it one that nothing loads, or takes the place of its manifest."""
    if bundle.resolve() in out.resolve().parents:
        raise CommandError(f"--out {out}: lies in the bundle that is read, {bundle}; name another folder", code=2)
