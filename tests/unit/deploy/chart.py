"""The Helm chart, rendered: what every test of it looks at."""

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import helm

DEPLOY = Path(__file__).parents[3] / "deploy"
CHART = DEPLOY / "helm" / "downtick"
VALUES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
Object = dict[str, Any]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """helm, which keeps what it keeps in no place of the developer's."""
    return subprocess.run([helm(), *words], capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def render(values: str, *sets: str, release: str = "prod") -> "Chart":
    """The objects for ci/<values>-values.yaml, with `sets` as --set takes them. They are shared: do not change them."""
    done = run("template", release, str(CHART), "--values", str(_file(values)), *_options(sets))
    assert done.returncode == 0, done.stderr
    return Chart([found for found in yaml.safe_load_all(done.stdout) if found])


def refused(values: str, *sets: str) -> str:
    """What Helm says when it does not render."""
    done = run("template", "prod", str(CHART), "--values", str(_file(values)), *_options(sets))
    assert done.returncode != 0, done.stdout
    return done.stderr


@functools.cache
def notes(values: str, *sets: str) -> str:
    """What Helm tells whoever installed it."""
    words = ("install", "prod", str(CHART), "--values", str(_file(values)), *_options(sets), "--dry-run=client")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def lint(values: str) -> subprocess.CompletedProcess[str]:
    return run("lint", "--strict", str(CHART), "--values", str(_file(values)))


def _file(values: str) -> Path:
    return CHART / "ci" / f"{values}-values.yaml"


def _options(sets: tuple[str, ...]) -> Iterator[str]:
    for one in sets:
        yield from ("--set", one)


class Chart:
    """Rendered objects."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def kinds(self) -> list[str]:
        return sorted(found["kind"] for found in self.objects)

    def one(self, kind: str) -> Object:
        """The only object of its kind."""
        (found,) = [each for each in self.objects if each["kind"] == kind]
        return found

    def spec(self, kind: str) -> Object:
        found: Object = self.one(kind)["spec"]
        return found

    @property
    def template(self) -> Object:
        """Metadata and spec of the workers' pods."""
        found: Object = self.spec("StatefulSet")["template"]
        return found

    @property
    def pod(self) -> Object:
        found: Object = self.template["spec"]
        return found

    @property
    def container(self) -> Object:
        (found,) = self.pod["containers"]
        return found

    def environment(self) -> dict[str, str]:
        """What is set by value."""
        return {one["name"]: one["value"] for one in self.container["env"] if "value" in one}
