"""What an evaluation demonstrates and what it does not, in plain words: for the terminal and for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from model.measured import METRICS, Part

if TYPE_CHECKING:
    from model.measured import Measured, Number, Outcome, Verdict

PARTS: tuple[Part, ...] = get_args(Part)
_WORDS: dict[Outcome, str] = {
    "better": "better than",
    "worse": "worse than",
    "the same": "the same as",
    "not told apart": "not told apart from",
}


def headline(found: Measured) -> str:
    """One line: does the bundle beat its baselines?"""
    if not found.verdicts:
        return "nothing can be compared on these rows"
    better = {part: found.better_than_all(part) for part in PARTS}
    counts = []
    for part in PARTS:
        own = [verdict for verdict in found.verdicts if verdict.part == part]
        if own:
            counts.append(f"the {part} beats {sum(v.outcome == 'better' for v in own)} of {len(own)}")
    answer = "yes" if all(value is not False for value in better.values()) else "no"
    told = f"better than every baseline: {answer}; {', '.join(counts)} (95 % intervals exclude 0)"
    if found.held.held_out:
        return told
    if found.held.same_data and found.held.test_from is None:
        return f"measured on what it was trained on, which says nothing about new data; {told}"
    return f"some of these rows may have been trained on; {told}"


def sentences(found: Measured) -> list[str]:
    """One sentence for each part that was scored: its score, and by how much it differs in the score that decides."""
    return [f"{part}: {'; '.join(_part(found, part))}" for part in PARTS if getattr(found, part) is not None]


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A number for reading, with a real minus; a dash for None."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(found: Number, digits: int, *, sign: bool = False) -> str:
    """`[low, high]`, empty where there is none."""
    if found.low is None or found.high is None:
        return ""
    return f"[{number(found.low, digits, sign=sign)}, {number(found.high, digits, sign=sign)}]"


def _part(found: Measured, part: Part) -> list[str]:
    verdicts = [verdict for verdict in found.verdicts if verdict.part == part]
    told = []
    for outcome, words in _WORDS.items():
        some = [verdict for verdict in verdicts if verdict.outcome == outcome]
        if some:
            told.append(f"{words} {', '.join(_against(verdict) for verdict in some)}")
    if told:
        told[0] = f"by {METRICS[verdicts[0].metric].title} {told[0]}"
    return [_own(found, part), *told, *(_earlier(found) if part == "flag" else [])]


def _earlier(found: Measured) -> list[str]:
    lead = found.flag.lead if found.flag is not None else None
    if lead is None or lead.mean.point is None:
        return []
    between = interval(lead.mean, 2)
    told = f"{number(lead.mean.point, 2, sign=True)} steps earlier than the trailing slope at equal precision"
    return [f"{told} {between}" if between else told]


def _own(found: Measured, part: Part) -> str:
    section = getattr(found, part)
    scores = section.models[0].scores
    names = {"flag": "auc", "forecast": "mae_ratio", "interval": "coverage"}
    name = names[part]
    digits = METRICS[name].digits
    value = f"{METRICS[name].title} {number(scores[name].point, digits)}"
    between = interval(scores[name], digits)
    told = f"{value} {between}" if between else value
    return f"{told} where it should be {section.level:g}" if part == "interval" else told


def _against(verdict: Verdict) -> str:
    if verdict.outcome == "the same":
        return verdict.title
    return f"{verdict.title} ({number(verdict.difference.point, METRICS[verdict.metric].digits, sign=True)})"
