"""The dashboards' queries, as Grafana would send them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One query of one panel, or of an annotation."""

    dashboard: str
    panel: str
    expr: str

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel}: {self.expr}"

    def filled(self, interval: str) -> str:
        """With all jobs, groups and instances, and this for $__rate_interval."""
        text = self.expr.replace("$__rate_interval", interval)
        for variable in ("job", "group", "instance"):
            text = text.replace(f"${variable}", ".*")
        assert "$" not in text, text
        return text


def queries(documents: Iterable[dict[str, Any]], *, annotations: bool = False) -> list[Asked]:
    """Of every panel; with `annotations` of those too."""
    found = []
    for document in documents:
        uid = document["uid"]
        for panel in document["panels"]:
            found += [Asked(uid, panel["title"], target["expr"]) for target in panel.get("targets", [])]
        if annotations:
            found += [Asked(uid, mark["name"], mark["expr"]) for mark in document["annotations"]["list"]]
    return found
