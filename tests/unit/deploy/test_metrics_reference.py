"""docs/metrics.md is what consumer/metrics.py declares."""

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from consumer.metrics import Metrics
from deploy.metrics_reference import PAGE, declared, page, row
from tests.support.tools import from_debian

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="process metrics are there on Linux only")


@linux
def test_the_page_is_what_the_code_declares() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(declared().collect()), "run `make metrics`"


@linux
def test_each_family_has_one_line_that_says_something() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| .* \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}) == len(list(declared().collect()))
    assert {kind for _, kind, _ in rows} == {"counter", "gauge", "histogram", "summary"}
    assert all(text.strip() for _, _, text in rows)


def test_labels_stand_with_the_values_they_can_have() -> None:
    found = {family.name: row(family) for family in declared().collect()}
    assert "| `to`: falling, not_falling |" in found["downtick_flips"]
    assert "| `partition` |" in found["downtick_consumer_lag_records"]
    assert "| `hit`: true, false; `model`: candidate, active |" in found["downtick_shadow_interval_hits"]
    assert "| histogram |  |" in found["downtick_batch_events"]


def test_a_family_whose_labels_nobody_can_tell_is_refused() -> None:
    registry = CollectorRegistry()
    Gauge("downtick_things", "Things.", ["kind"], registry=registry)
    with pytest.raises(ValueError, match="downtick_things has no sample"):
        page(registry.collect())


def test_no_metric_has_a_label_for_a_stock() -> None:
    assert "`stock`" not in PAGE.read_text(encoding="utf-8")


@linux
def test_the_process_is_measured_too() -> None:
    value = Metrics().registry.get_sample_value
    assert (value("process_resident_memory_bytes") or 0) > 10_000_000
    assert (value("process_open_fds") or 0) > 2
    assert value("python_gc_collections_total", {"generation": "2"}) is not None


def test_promtool_finds_nothing_to_complain_of_in_any_family() -> None:
    text = generate_latest(declared())
    done = subprocess.run([from_debian("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
