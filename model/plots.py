"""Plots as inline SVG: no script, no font, no colour of their own, so that they read on light and dark pages alike.

Every plot has a title, named axes and a text for those who cannot see it. Colours and fonts are classes of the page's
style sheet (report.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.measured import Bin, LeadCount, Outcome

WIDTH = 460.0
ROW = 26.0  # height of a row in a forest


@dataclass(frozen=True)
class Bar:
    """One line of a forest: a point with its interval."""

    label: str
    point: float
    low: float | None
    high: float | None
    outcome: Outcome | None = None


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 round numbers within low..high."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    power = 10 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def forest(title: str, axis: str, bars: Sequence[Bar], reference: float, meaning: tuple[str, str]) -> str:
    """Points with intervals, one below the other, against a reference line.

    Args:
        meaning: what lies left and right of the reference line."""
    ends = [v for bar in bars for v in (bar.point, bar.low, bar.high) if v is not None]
    low, high = _padded(min([*ends, reference]), max([*ends, reference]))
    # About as wide as the longest label: SVG has no layout of its own.
    left, top, bottom = 24.0 + 6.6 * max(len(bar.label) for bar in bars), 58.0, 46.0
    height = top + ROW * len(bars) + bottom
    plot = _Plot(title, (low, high), (0.0, 1.0), (left, WIDTH - 16.0), (height - bottom, top), height)
    plot.x_axis(axis)
    x = plot.x(reference)
    plot.add(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{height - bottom:.1f}"/>')
    plot.text(left, top - 10, f"← {meaning[0]}", "start", "small")
    plot.text(WIDTH - 16.0, top - 10, f"{meaning[1]} →", "end", "small")
    for number, bar in enumerate(bars):
        y = top + ROW * (number + 0.5)
        style = {"better": "better", "worse": "worse"}.get(bar.outcome or "", "plain")
        plot.text(left - 10, y + 4, bar.label, "end")
        if bar.low is not None and bar.high is not None:
            plot.add(
                f'<line class="{style} bar" x1="{plot.x(bar.low):.1f}" x2="{plot.x(bar.high):.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        plot.add(f'<circle class="{style} dot" cx="{plot.x(bar.point):.1f}" cy="{y:.1f}" r="4"/>')
    return plot.svg(f"{title}. {'; '.join(_spoken(bar) for bar in bars)}")


def reliability(title: str, bins: Sequence[Bin]) -> str:
    """Share of falling steps over the probability that was said; on the diagonal is calibrated."""
    plot = _Plot(title, (0.0, 1.0), (0.0, 1.0), (62.0, WIDTH - 16.0), (330.0, 40.0), 380.0)
    plot.x_axis("probability said (mean of the bin)")
    plot.y_axis("share that was falling")
    plot.add(
        f'<line class="reference" x1="{plot.x(0):.1f}" y1="{plot.y(0):.1f}" x2="{plot.x(1):.1f}" y2="{plot.y(1):.1f}"/>'
    )
    points = [(plot.x(b.probability), plot.y(b.rate)) for b in reversed(bins)]
    plot.line(points)
    for x, y in points:
        plot.add(f'<circle class="series dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    spoken = "; ".join(f"said {b.probability:.2f}, was {b.rate:.2f}" for b in bins)
    return plot.svg(f"{title}. {spoken}")


def histogram(title: str, x_axis: str, counts: Sequence[LeadCount]) -> str:
    """Bars of whole numbers; zero is marked."""
    steps = [c.steps for c in counts]
    low, high = min([*steps, 0]) - 0.7, max([*steps, 0]) + 0.7
    most = max((c.stretches for c in counts), default=1)
    plot = _Plot(title, (low, high), (0.0, most * 1.05), (62.0, WIDTH - 16.0), (240.0, 40.0), 290.0)
    plot.x_axis(x_axis)
    plot.y_axis("stretches")
    width = (plot.x(1) - plot.x(0)) * 0.8
    for count in counts:
        x, y = plot.x(count.steps) - width / 2, plot.y(count.stretches)
        plot.add(f'<rect class="series" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{plot.y(0) - y:.1f}"/>')
    x = plot.x(0)
    plot.add(f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{plot.y(0):.1f}" y2="{plot.y(most):.1f}"/>')
    return plot.svg(f"{title}. " + "; ".join(f"{c.steps} steps: {c.stretches} stretches" for c in counts))


def over_time(title: str, y_axis: str, names: Sequence[str], values: Sequence[float | None], reference: float) -> str:
    """One value for each stretch of time; stretches that cannot tell are left out."""
    known = [v for v in values if v is not None]
    low, high = _padded(min([*known, reference]), max([*known, reference]))
    plot = _Plot(title, (0.0, max(1.0, len(values) - 1.0)), (low, high), (62.0, WIDTH - 16.0), (190.0, 40.0), 250.0)
    plot.y_axis(y_axis)
    y = plot.y(reference)
    plot.add(f'<line class="reference" x1="{plot.x(0):.1f}" x2="{WIDTH - 16:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
    shown = {0, len(names) - 1} if len(names) < 7 else {0, len(names) // 2, len(names) - 1}
    for number in sorted(shown):
        anchor = "start" if number == 0 else "end" if number == len(names) - 1 else "middle"
        plot.text(plot.x(number), 208.0, names[number], anchor, "small")
    plot.text((62.0 + WIDTH - 16.0) / 2, 234.0, "stretch of time that begins at", "middle")
    points = [(plot.x(number), plot.y(v)) for number, v in enumerate(values) if v is not None]
    plot.line(points)
    for x, y in points:
        plot.add(f'<circle class="series dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return plot.svg(
        f"{title}. " + "; ".join(f"{n}: {v:.3f}" for n, v in zip(names, values, strict=True) if v is not None)
    )


class _Plot:
    """An SVG in the making: data ranges, the pixels they fill, and what has been drawn."""

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        across: tuple[float, float],
        down: tuple[float, float],
        height: float,
    ) -> None:
        self._x, self._y, self._across, self._down, self._height = x, y, across, down, height
        self._parts: list[str] = []
        self.text(4.0, 16.0, title, "start", "title")

    def x(self, value: float) -> float:
        return float(np.interp(value, self._x, self._across))

    def y(self, value: float) -> float:
        return float(np.interp(value, self._y, self._down))

    def add(self, part: str) -> None:
        self._parts.append(part)

    def text(self, x: float, y: float, text: str, anchor: str, style: str = "") -> None:
        kind = f' class="{style}"' if style else ""
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>')

    def line(self, points: Sequence[tuple[float, float]]) -> None:
        self.add(f'<polyline class="series line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')

    def x_axis(self, label: str) -> None:
        bottom, top = self._down
        for value in ticks(*self._x):
            x = self.x(value)
            self.add(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>')
            self.text(x, bottom + 16, _short(value), "middle", "small")
        self.text(sum(self._across) / 2, bottom + 36, label, "middle")

    def y_axis(self, label: str) -> None:
        left, right = self._across
        for value in ticks(*self._y):
            y = self.y(value)
            self.add(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.text(left - 6, y + 4, _short(value), "end", "small")
        middle = sum(self._down) / 2
        self.add(
            f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">'
            f"{escape(label)}</text>"
        )

    def svg(self, spoken: str) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH:.0f} {self._height:.0f}" role="img" aria-label="{escape(spoken)}">'
            f"{''.join(self._parts)}</svg>"
        )


def _padded(low: float, high: float) -> tuple[float, float]:
    span = (high - low) or max(abs(high), 1e-3)
    return low - 0.08 * span, high + 0.08 * span


def _short(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _spoken(bar: Bar) -> str:
    between = "" if bar.low is None or bar.high is None else f", {bar.low:.4g} to {bar.high:.4g}"
    return f"{bar.label}: {bar.point:.4g}{between}"
