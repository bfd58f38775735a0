"""Types of command-line arguments whose errors say what was expected."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def positive(text: str) -> float:
    """A finite number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return number


def whole(text: str) -> int:
    """A whole number from 1 up."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not {text!r}")
    return int(text)


def port(text: str) -> int:
    """A TCP port."""
    number = whole(text)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, not {text!r}")
    return number


def between(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type of whole numbers from `least` up, to `most` if given."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= (most or math.inf)):
            raise argparse.ArgumentTypeError(f"must be a whole number, {bounds}")
        return int(text)

    return number


def fraction(text: str) -> float:
    """A number above 0 and below 1."""
    number = positive(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and below 1, not {text!r}")
    return number


def names(text: str) -> tuple[str, ...]:
    """Names, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
