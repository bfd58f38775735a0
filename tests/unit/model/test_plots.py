"""Plots that need nothing else: numbers of axes, text that is escaped, and what is said to those who cannot see."""

from xml.etree import ElementTree as ET

import pytest

from model.measured import Bin, LeadCount
from model.plots import Bar, forest, histogram, over_time, reliability, ticks

NASTY = '<script>alert("x")</script>'


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.003, 0.021, [0, 0.005, 0.01, 0.015, 0.02]),
        (-14.7, 15.7, [-10, 0, 10]),
        (0.0, 377.0, [0, 100, 200, 300]),
        (5.0, 5.0, [5]),
    ],
)
def test_axes_have_few_and_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def drawn() -> dict[str, str]:
    bars = [Bar("slope", 0.1, 0.05, 0.15, "better"), Bar(NASTY, -0.1, None, None)]
    return {
        "forest": forest("Forest", "difference", bars, 0.0, ("worse", "better")),
        "reliability": reliability("Reliability", [Bin(probability=0.5, rate=0.25, share=1.0)]),
        "histogram": histogram("Lead", "steps", [LeadCount(steps=-1, stretches=2), LeadCount(steps=3, stretches=5)]),
        "over_time": over_time("Time", "AUC", ["2016", NASTY, "2018"], [0.5, None, 0.7], 0.5),
    }


@pytest.mark.parametrize("name", ["forest", "reliability", "histogram", "over_time"])
def test_a_plot_is_well_formed_has_a_title_and_axes_and_speaks(name: str) -> None:
    root = ET.fromstring(drawn()[name])  # noqa: S314 - our own
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    assert texts[0] in {"Forest", "Reliability", "Lead", "Time"}
    assert len(texts) > 4
    assert len(root.attrib["aria-label"]) > 20
    assert not [e for e in root.iter() if e.tag not in {"svg", "text", "line", "circle", "rect", "polyline"}]


def test_a_point_lies_where_the_axis_says() -> None:
    root = ET.fromstring(drawn()["reliability"])  # noqa: S314 - our own
    grid = {t.text: float(t.attrib["x"]) for t in root.iter("text") if t.attrib.get("text-anchor") == "middle"}
    dot = next(iter(root.iter("circle")))
    assert float(dot.attrib["cx"]) == pytest.approx((grid["0.4"] + grid["0.6"]) / 2, abs=0.1)


def test_numbers_that_are_all_the_same_still_make_a_plot() -> None:
    assert "<circle" in forest("t", "x", [Bar("a", 0.0, 0.0, 0.0)], 0.0, ("l", "r"))
    assert "<circle" in over_time("t", "y", ["a", "b"], [1.0, 1.0], 1.0)
