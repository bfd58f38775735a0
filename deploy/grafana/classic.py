"""Grafana's classic dashboard JSON, from panels that say only what differs between them.

Every selector gets the same matchers, every graph the same looks. Panels are laid out left to right, 24 columns wide.
Schema: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/ (classic)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCHEMA_VERSION = 39  # Grafana 11; newer ones read it and bring it up to date themselves
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
MATCHERS = 'job=~"$job", group=~"$group", instance=~"$instance"'
# A series of ours, or of the process that exports them: where its matchers go, those in braces are kept behind them.
_SERIES = re.compile(r"\b((?:downtick|process|python)_\w+|up)(?:\{([^}]*)\})?")

Colour = Literal["green", "yellow", "orange", "red", "blue", "text"]


@dataclass(frozen=True)
class Query:
    """One expression. Write selectors without job, group and instance: they are added."""

    expr: str
    legend: str = "__auto"

    def text(self) -> str:
        """The expression as Grafana sends it, its variables filled in."""
        return _SERIES.sub(lambda found: f"{found[1]}{{{', '.join(filter(None, (MATCHERS, found[2])))}}}", self.expr)


@dataclass(frozen=True)
class Panel:
    """A picture of some queries.

    Args:
        title: unique in the dashboard.
        description: what is seen, and what to do about it.
        unit: one of Grafana's ids: short, s, percentunit, cps (counts a second), bytes, …
        kind: `stat` shows the newest number; `timeseries` a graph.
        steps: thresholds, (from, colour) rising; the first colour holds below the first step. For graphs: lines.
        low, high: of the axis; None where the data decide.
        stack: whether the series are parts of a whole."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    base: Colour = "green"
    steps: tuple[tuple[float, Colour], ...] = ()
    low: float | None = 0
    high: float | None = None
    stack: bool = False
    decimals: int | None = None
    width: int = 8
    height: int = 8


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Annotation:
    """A mark across all graphs where the expression has a value."""

    name: str
    expr: str
    text: str
    colour: Colour


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    *,
    annotations: Iterable[Annotation],
    links: Sequence[tuple[str, str]],
    span: str,
    refresh: str,
) -> dict[str, Any]:
    """The whole document.

    Args:
        links: (title, uid) of the others; the time range and the variables go along.
        span: of time that is shown at first, as in `15m`.
    """
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["downtick"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all graphs
        "time": {"from": f"now-{span}", "to": "now"},
        "timezone": "browser",
        "refresh": refresh,
        "templating": {"list": _variables()},
        "annotations": {"list": [_annotation(one) for one in annotations]},
        "links": [_link(*link) for link in links],
        "panels": list(_laid_out(rows)),
    }


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "current": {"text": "Prometheus", "value": "prometheus"},
    }
    return [
        source,
        _variable("job", "Job", "label_values(downtick_ready, job)"),
        _variable("group", "Group", 'label_values(downtick_ready{job=~"$job"}, group)'),
        _variable("instance", "Instance", 'label_values(downtick_ready{job=~"$job", group=~"$group"}, instance)'),
    ]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,  # whenever the time range changes: workers come and go
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # a scrape without the label `group` is shown too
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _annotation(one: Annotation) -> dict[str, Any]:
    return {
        "name": one.name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": one.colour,
        "expr": Query(one.expr).text(),
        "step": "15s",
        "titleFormat": one.name,
        "textFormat": one.text,
    }


def _link(title: str, uid: str) -> dict[str, Any]:
    return {
        "title": title,
        "type": "link",
        "url": f"/d/{uid}",
        "keepTime": True,
        "includeVars": True,
        "icon": "dashboard",
    }


def _laid_out(rows: Sequence[Row]) -> Iterable[dict[str, Any]]:
    number, y = 1, 0
    for row in rows:
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _at(0, y)}
        number, x, y = number + 1, 0, y + 1
        height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            height = panel.height
            yield {"id": number, **_panel(panel), "gridPos": _at(x, y, panel.width, panel.height)}
            number, x = number + 1, x + panel.width
        y += height


def _at(x: int, y: int, width: int = COLUMNS, height: int = 1) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    limits = {name: value for name, value in (("min", panel.low), ("max", panel.high)) if value is not None}
    steps = [{"color": panel.base, "value": None}, *({"color": c, "value": at} for at, c in panel.steps)]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        **limits,
        **({} if panel.decimals is None else {"decimals": panel.decimals}),
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": {},
    }
    if panel.kind == "stat":
        options: dict[str, Any] = {
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    else:
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stack else 8,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
        options = {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": SOURCE,
                "expr": query.text(),
                "legendFormat": query.legend,
                # A number is of now: "the newest there is" would show a dead worker's last one for ever.
                "range": panel.kind != "stat",
                "instant": panel.kind == "stat",
                "editorMode": "code",
            }
            for i, query in enumerate(panel.queries)
        ],
    }
