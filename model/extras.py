"""Packages of the extra `downtick[training]`, imported where they are used and not before: serving needs none."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

EVALUATION = ("lightgbm", "scipy", "sklearn", "statsforecast")  # what `downtick evaluate` compares with


class MissingExtra(Exception):
    """A package of the extra is not installed; one line that says how to install it."""


def extra(name: str) -> Any:
    """The module (untyped), imported now. Raises: MissingExtra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(_told(name.partition(".")[0])) from error
    except OSError as error:  # LightGBM's wheel wants the system's OpenMP
        raise MissingExtra(f"{name} cannot be loaded: {error}; on Debian: apt-get install libgomp1") from error


def require(names: tuple[str, ...] = EVALUATION) -> None:
    """Look for all of them, without importing any: seconds of work should not end at the last. Raises: MissingExtra."""
    for name in names:
        if find_spec(name) is None:
            raise MissingExtra(_told(name))


def _told(package: str) -> str:
    return f"this needs {package}, which is not installed: pip install 'downtick[training]'"
