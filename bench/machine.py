"""Where a measurement runs: the project's folder, this machine, the versions and the commit."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]


def host(packages: Sequence[str]) -> dict[str, Any]:
    """This machine, the versions of those packages that are here, and the commit."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    memory = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    git = ["git", "-C", str(ROOT)]
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory[1]) / 1e6, 1) if memory else None,
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions,
        "commit": output([*git, "rev-parse", "HEAD"]),
        "changed_files": len(output([*git, "status", "--porcelain", "--untracked-files=no"]).splitlines()),
    }


def output(command: Sequence[str]) -> str:
    """What a command says on stdout, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def publish(name: str, document: Mapping[str, Any], page: str, out: Path | None) -> None:
    """Print the page; with a folder, also write NAME.json and NAME.md into it."""
    print(page)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (out / f"{name}.md").write_text(page + "\n", encoding="utf-8")
        say(f"written to {out}")


def say(text: str) -> None:
    """Progress goes to stderr; stdout is the result's."""
    print(text, file=sys.stderr, flush=True)
