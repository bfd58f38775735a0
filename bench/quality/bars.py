"""What a result must reach, and whether it does: a miss is told as plainly as a hit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def bar(what: str, value: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """One bar: the value must be at least, or at most, a number (or between two)."""
    met = (least is None or value >= least) and (most is None or value <= most)
    return {"what": what, "value": value, "least": least, "most": most, "met": met}


def lines(bars: Sequence[Mapping[str, Any]]) -> list[str]:
    """The bars as a table."""
    missed = sum(not one["met"] for one in bars)
    told = "All bars are met." if not missed else f"**{missed} of {len(bars)} bars are missed.**"
    rows = [
        f"| {one['what']} | {_wanted(one)} | {one['value']:.4f} | {'met' if one['met'] else '**missed**'} |"
        for one in bars
    ]
    return ["", "## Bars", "", told, "", "| | wanted | found | |", "|---|---|---|---|", *rows]


def _wanted(one: Mapping[str, Any]) -> str:
    parts = [f"{sign} {one[key]:g}" for key, sign in (("least", "≥"), ("most", "≤")) if one[key] is not None]
    return " and ".join(parts)
