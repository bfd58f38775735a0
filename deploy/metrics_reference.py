"""The metrics reference, docs/metrics.md, made from consumer/metrics.py: `python -m deploy.metrics_reference`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from consumer.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry, Metric

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
OURS = "downtick_"
OPEN = {"partition", "version"}  # labels whose values are not known beforehand

_HEAD = """\
# Metrics

What `/metrics` shows, and what to do when it moves. Made from `consumer/metrics.py` by `make metrics`, not by hand.
`tests/unit/deploy/test_metrics_reference.py` compares this page with the code,
`tests/integration/test_service_metrics.py` with a running service, whose numbers it sees move by the right amounts.

A worker shows its own numbers: sum over workers for the group's. Counters begin at nothing with each process.
Alerts on them, and what to do at each: [runbook.md](runbook.md).

| metric | type | labels | meaning, and what to do |
|---|---|---|---|
"""

_PROCESS = """
## The process

From the Prometheus client library; `process_…` on Linux only.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def declared() -> CollectorRegistry:
    """What a service registers, each family with the samples that show its labels."""
    metrics = Metrics()
    metrics.show_model("")
    metrics.shadow.info.labels("")
    for gauge in (metrics.consumer_lag, metrics.breaker_open):
        gauge.labels("0")
    return metrics.registry


def row(family: Metric) -> str:
    """One line of the table: name as it is queried, type, labels with the values they can have, help text.

    Raises: ValueError for a family without a sample: nobody could tell its labels."""
    if not family.samples:
        raise ValueError(f"{family.name} has no sample: give it one in deploy/metrics_reference.py")
    name = family.name + ("_total" if family.type == "counter" else "")
    labels: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            values = labels.setdefault(label, [])
            if label not in {*OPEN, "le"} and value not in values:
                values.append(value)
    labels.pop("le", None)
    told = [f"`{label}`" + (f": {', '.join(values)}" if values else "") for label, values in sorted(labels.items())]
    text = family.documentation.replace("|", "\\|")
    return f"| `{name}` | {family.type} | {'; '.join(told)} | {text} |"


def page(found: Iterable[Metric]) -> str:
    """The whole page."""
    ours: list[str] = []
    others: list[str] = []
    for family in found:
        (ours if family.name.startswith(OURS) else others).append(row(family))
    return _HEAD + "\n".join(sorted(ours)) + "\n" + _PROCESS + "\n".join(sorted(others)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(declared().collect()), encoding="utf-8")
