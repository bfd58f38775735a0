"""The rules, by promtool: valid, each alert with a case that fires and one that stays silent, each with its section in
the runbook; and a rule that is broken breaks the cases. On a live service: tests/integration/test_monitoring.py."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import from_debian

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS, RECORDING = (PROMETHEUS / "rules" / f"{name}.yml" for name in ("alerts", "recording"))
CASES = Path(__file__).parent / "promtool" / "alerts.yml"


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


NAMES = [rule["alert"] for rule in rules(ALERTS)]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([from_debian("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    done = promtool("check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_case_comes_out_as_it_says() -> None:
    done = promtool("test", "rules", CASES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_case_that_fires_and_one_that_is_silent(name: str) -> None:
    fires, silent = False, False
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for asked in case.get("promql_expr_test", []):
            if name in asked["expr"]:
                fires |= bool(asked["exp_samples"])
                silent |= not asked["exp_samples"]
    assert fires
    assert silent


@pytest.mark.parametrize("expr", ["vector(1)", "vector(1) > 2"], ids=["always", "never"])
def test_alerts_that_fire_always_or_never_break_the_cases_of_each(expr: str, tmp_path: Path) -> None:
    document = yaml.safe_load(ALERTS.read_text())
    for rule in document["groups"][0]["rules"]:
        rule |= {"expr": expr, "for": "0s"}
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
    cases = yaml.safe_load(CASES.read_text()) | {"rule_files": [str(RECORDING), str(tmp_path / "alerts.yml")]}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))
    done = promtool("test", "rules", tmp_path / "cases.yml")
    assert done.returncode == 1
    assert [name for name in NAMES if name not in done.stdout + done.stderr] == []


@pytest.mark.parametrize("rule", rules(ALERTS), ids=NAMES)
def test_an_alert_says_what_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Downtick")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    headings = re.findall(
        r"^## (Downtick\w+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings == NAMES


def test_every_range_holds_four_scrapes() -> None:
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    seconds = {"s": 1, "m": 60, "h": 3600}
    spans = re.findall(r"\[(\d+)([smh])\]", ALERTS.read_text() + RECORDING.read_text())
    assert spans
    assert all(int(n) * seconds[unit] >= 4 * int(scrape[:-1]) * seconds[scrape[-1]] for n, unit in spans)


def test_every_recorded_series_is_used() -> None:
    alerts = ALERTS.read_text()
    assert [rule["record"] for rule in rules(RECORDING) if rule["record"] not in alerts] == []
