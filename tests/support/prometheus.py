"""A real Prometheus with the files of deploy/, hurried: it scrapes and evaluates twice a second, ranges are
seconds, and nothing has to hold for long. All else is what is deployed."""

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.ports import free_port
from tests.support.processes import Process, wait_until
from tests.support.tools import from_debian

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"
RANGE = "10s"  # in place of the ranges of the rules, and of Grafana's $__rate_interval
LIVES = "2m"  # in place of [15m]: room for three starts
Samples = dict[tuple[tuple[str, str], ...], float]


class Prometheus:
    """Use it as a context. `targets`: instance → port, of the job downtick; `aim` changes them."""

    def __init__(self, folder: Path, targets: Mapping[str, int]) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
        (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "downtick")
        del job["dns_sd_configs"]
        job["static_configs"] = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance}} for instance, port in targets.items()
        ]
        config["scrape_configs"] = [job]
        config["rule_files"] = [str(folder / "*.rules.yml")]
        for path in DEPLOYED.glob("rules/*.yml"):
            (folder / f"{path.stem}.rules.yml").write_text(hurried(path.read_text()))
        self._config = folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(config))
        self._process: Process | None = None

    def __enter__(self) -> Self:
        arguments = ["--config.file", str(self._config), "--storage.tsdb.path", str(self.folder / "data")]
        arguments += ["--web.listen-address", f"127.0.0.1:{self.port}", "--log.level", "warn"]
        self._process = Process([from_debian("prometheus"), *arguments], log=self.folder / "prometheus.log")
        wait_until(self._answers, within=30, what=lambda: f"Prometheus:\n{self._tail()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()

    def _answers(self) -> bool:
        try:
            return bool(self._get("/api/v1/status/config"))
        except OSError:
            return False

    def _tail(self) -> str:
        return "" if self._process is None else self._process.tail()

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, expr: str) -> Samples:
        """What it answers now, by labels; numbers that are none are left out. HTTPError when it refuses the query."""
        found = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expr})}")
        if found["resultType"] == "scalar":
            return {(): float(found["result"][1])}
        values = {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in found["result"]}
        return {labels: value for labels, value in values.items() if not math.isnan(value)}

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {one["labels"]["alertname"] for one in self._get("/api/v1/alerts")["alerts"] if one["state"] == "firing"}

    def rules_in_trouble(self) -> list[str]:
        """Rules whose evaluation failed."""
        groups = self._get("/api/v1/rules")["groups"]
        return [
            f"{rule['name']}: {rule.get('lastError')}"
            for group in groups
            for rule in group["rules"]
            if rule["health"] == "err"
        ]


def hurried(rules: str) -> str:
    """The same rules: every range RANGE or LIVES, every `for` half a second. An offset stays: what it asks for is that
    something has been there for long, and here nothing has."""
    rules = re.sub(r"\[\d+[smh]\]", lambda found: f"[{LIVES if found[0] == '[15m]' else RANGE}]", rules)
    return re.sub(r"(\bfor:) \w+", r"\1 500ms", rules)
