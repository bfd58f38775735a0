"""The dashboards are what the generator makes, and a lint of them finds nothing. What the queries answer is asked of a
real Prometheus in tests/integration/test_monitoring.py."""

import copy
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.metrics import Metrics
from deploy.grafana import dashboards
from tests.support.grafana import queries
from tests.support.tools import from_debian

ROOT = Path(__file__).parents[3]
COMMITTED = {path.name: json.loads(path.read_text()) for path in sorted(dashboards.FOLDER.glob("*.json"))}
# Ids that Grafana knows: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
UNITS = {"short", "s", "percentunit", "cps", "bytes"}
_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\{([^}]*)\}")
_WORD = re.compile(r"\b(?:downtick|process|python|group:downtick)_\w+")
_RANGE = re.compile(r"\b(?:rate|increase)\([^\[]*\[([^\]]*)\]")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
Document = dict[str, Any]


def exported() -> set[str]:
    """Names of all samples that the service exports."""
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "summary": ["_sum", "_count"]}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    return names


def panels(document: Document) -> list[Document]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def findings(document: Document) -> list[str]:
    """What is wrong with a dashboard, a line each."""
    return [*_of_the_whole(document), *(f"{p['title']}: {f}" for p in panels(document) for f in _of_a_panel(p))]


def _of_the_whole(document: Document) -> Iterator[str]:
    if not re.fullmatch(r"downtick-[a-z]+", document["uid"]):
        yield "its uid is not downtick-…"
    titles = [panel["title"] for panel in document["panels"]]
    yield from (f"two panels are called {title}" for title in set(titles) if titles.count(title) > 1)
    ids = [panel["id"] for panel in document["panels"]]
    if len(set(ids)) < len(ids):
        yield "two panels have one id"
    variables = [variable["name"] for variable in document["templating"]["list"]]
    if variables != ["datasource", "job", "group", "instance"]:
        yield f"its variables are {variables}"
    if {mark["name"] for mark in document["annotations"]["list"]} != {"Model change", "Rebalance"}:
        yield "model changes and rebalances are not marked"
    for one, other in ((a, b) for a in document["panels"] for b in document["panels"] if a["id"] < b["id"]):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"{one['title']} covers {other['title']}"


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


def _of_a_panel(panel: Document) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    if len(panel.get("description", "")) < 30:
        yield "no description"
    if defaults.get("unit") not in UNITS:
        yield f"unit {defaults.get('unit')}"
    steps = defaults.get("thresholds", {}).get("steps", [])
    if (
        not steps
        or steps[0]["value"] is not None
        or [s["value"] for s in steps[1:]] != sorted(s["value"] for s in steps[1:])
    ):
        yield "thresholds do not rise from a base"
    if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24:
        yield "wider than the page"
    if panel["datasource"]["uid"] != "${datasource}" or not panel["targets"]:
        yield "no data source, or no query"
    for target in panel["targets"]:
        yield from _of_a_query(target["expr"], target["legendFormat"])


def _of_a_query(expr: str, legend: str) -> Iterator[str]:
    selectors = _SELECTOR.findall(expr)
    if len(_WORD.findall(expr)) != len(selectors):
        yield f"a series without matchers in {expr}"
    for name, matchers in selectors:
        has = {part.split("=")[0].strip(): part for part in matchers.split(",")}
        for label in ("job", "group", "instance"):
            if f'{label}=~"${label}"' not in has.get(label, ""):
                yield f"{name} is not matched by {label}"
        if name not in exported():
            yield f"nobody exports {name}"
    if re.search(r"\bstock\b", expr + legend):
        yield "a label of stocks"
    yield from (f"[{span}] instead of $__rate_interval" for span in _RANGE.findall(expr) if span != "$__rate_interval")
    grouped = {label.strip() for labels in _GROUPED.findall(expr) for label in labels.split(",")}
    yield from (
        f"no label {label} for the legend" for label in re.findall(r"{{(\w+)}}", legend) if label not in grouped
    )


def test_the_committed_files_are_what_the_generator_makes() -> None:
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in dashboards.FOLDER.glob("*.json")}
    assert on_disk == dashboards.texts(), "run `make dashboards`"


@pytest.mark.parametrize("name", COMMITTED)
def test_the_lint_finds_nothing(name: str) -> None:
    assert findings(COMMITTED[name]) == []


def test_no_uid_is_used_twice() -> None:
    uids = [document["uid"] for document in COMMITTED.values()]
    assert len(set(uids)) == len(uids)


def test_links_lead_to_the_other_dashboard() -> None:
    uids = {document["uid"] for document in COMMITTED.values()}
    for document in COMMITTED.values():
        assert {link["url"] for link in document["links"]} == {f"/d/{uid}" for uid in uids - {document["uid"]}}


def test_every_metric_is_seen_somewhere() -> None:
    shown = {name for query in queries(COMMITTED.values()) for name, _ in _SELECTOR.findall(query.expr)}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported()}
    missing = {
        family for family in families if not any(re.sub(r"_(total|bucket|sum|count)$", "", s) == family for s in shown)
    }
    assert {name for name in missing if name.startswith("downtick_")} == set()


def test_what_is_counted_before_a_workers_first_scrape_is_shown_as_it_stands() -> None:
    shown = [query.expr for query in queries(COMMITTED.values()) if "history_gap_records" in query.expr]
    assert len(shown) == 1
    assert not re.search(r"\b(rate|increase)\(", shown[0])


def test_a_new_worker_and_one_that_was_away_for_long_are_marked_as_a_rebalance(tmp_path: Path) -> None:
    marks = {q.filled("1m") for q in queries(COMMITTED.values(), annotations=True) if q.panel == "Rebalance"}
    (expr,) = marks
    started = 'process_start_time_seconds{job="downtick", group="downtick", instance="%s"}'
    ready = 'downtick_ready{job="downtick", group="downtick", instance="%s"}'
    case = {
        "interval": "15s",
        "input_series": [
            {"series": started % "old", "values": "0x80"},
            {"series": started % "new", "values": "_x20 290x60"},
            {"series": started % "again", "values": "0x8 _x26 515x60"},
            {"series": ready % "old", "values": "1x80"},
            {"series": ready % "new", "values": "_x20 0x60"},
            {"series": ready % "again", "values": "1x8 _x26 0x60"},
            {"series": 'process_start_time_seconds{job="node", instance="foreign"}', "values": "_x20 290x60"},
        ],
        "promql_expr_test": [
            {"expr": f"count by (instance) ({expr})", "eval_time": at, "exp_samples": samples}
            for at, samples in {
                "4m": [],
                "5m15s": [{"labels": '{instance="new"}', "value": 1}],
                "7m": [],
                "9m": [{"labels": '{instance="again"}', "value": 1}],
                "12m": [],
            }.items()
        ],
    }
    (tmp_path / "cases.yml").write_text(yaml.safe_dump({"tests": [case]}))
    command = [from_debian("promtool"), "test", "rules", str(tmp_path / "cases.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_now_fits_on_a_screen_and_answers_what_an_operator_asks_first() -> None:
    now = COMMITTED["now.json"]
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in now["panels"]) <= 24
    titles = {panel["title"] for panel in panels(now)}
    first = {"Updates in", "Predictions out", "Updates waiting", "p99 event to prediction", "Falling share"}
    assert first | {"Dead letters", "Workers"} <= titles


def test_provisioning_names_what_is_there() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    chosen = COMMITTED["now.json"]["templating"]["list"][0]["current"]["value"]
    assert source["uid"] == chosen
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["global"][
        "scrape_interval"
    ]
    assert source["jsonData"]["timeInterval"] == scraped
    (provider,) = yaml.safe_load((folder / "dashboards" / "downtick.yml").read_text())["providers"]
    compose = ROOT / "docker-compose.yml"
    mounts = [str(volume) for volume in yaml.safe_load(compose.read_text())["services"]["grafana"]["volumes"]]
    assert any(provider["options"]["path"] in mount and "deploy/grafana/dashboards" in mount for mount in mounts)


def _first(document: Document) -> Document:
    return panels(document)[0]


def _expr(change: Callable[[str], str]) -> Callable[[Document], None]:
    def apply(document: Document) -> None:
        target = _first(document)["targets"][0]
        target["expr"] = change(target["expr"])

    return apply


BREAKS: dict[str, Callable[[Document], object]] = {
    "a fixed range": _expr(lambda e: e.replace("$__rate_interval", "5m")),
    "no job": _expr(lambda e: e.replace('job=~"$job", ', "")),
    "no instance": _expr(lambda e: e.replace(', instance=~"$instance"', "")),
    "no matchers at all": _expr(lambda e: re.sub(r"\{.*?\}", "", e)),
    "a metric that is not there": _expr(lambda e: e.replace("consumed", "consumd")),
    "a stock": _expr(lambda e: e.replace("sum(", "sum by (stock) (")),
    "a legend without its label": lambda d: _first(d)["targets"][0].update(legendFormat="{{reason}}"),
    "no unit": lambda d: _first(d)["fieldConfig"]["defaults"].pop("unit"),
    "no thresholds": lambda d: _first(d)["fieldConfig"]["defaults"].pop("thresholds"),
    "no description": lambda d: _first(d).pop("description"),
    "a title twice": lambda d: panels(d)[1].update(title=panels(d)[0]["title"]),
    "an id twice": lambda d: panels(d)[1].update(id=panels(d)[0]["id"]),
    "another uid": lambda d: d.update(uid="x"),
    "no annotation": lambda d: d["annotations"]["list"].pop(),
    "no variable": lambda d: d["templating"]["list"].pop(),
    "one over the other": lambda d: panels(d)[1].update(gridPos=panels(d)[0]["gridPos"]),
    "a data source by name": lambda d: _first(d).update(datasource={"uid": "prometheus"}),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_lint_finds(name: str) -> None:
    document = copy.deepcopy(COMMITTED["now.json"])
    BREAKS[name](document)
    assert findings(document)
