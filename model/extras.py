"""Packages of the extra `downtick[training]`, imported where they are used and not before: serving needs none."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtra(Exception):
    """A package of the extra is not installed; one line that says how to install it."""


def extra(name: str) -> Any:
    """The module (untyped), imported now. Raises: MissingExtra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        raise MissingExtra(f"this needs {package}, which is not installed: pip install 'downtick[training]'") from error
