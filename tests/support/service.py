"""The real service as its own process, with everything said to it from outside.

Unless told otherwise it has TensorFlow from the start (forks.py)."""

import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.support.ports import free_port
from tests.support.processes import Forked, Process, wait_until

ROOT = Path(__file__).parents[2]
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)(?: \d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Fault:
    """What the launcher does to the service: kill, stop or hold it at the n-th pass of a step (launcher.py names steps
    and actions)."""

    step: str
    nth: int = 1
    action: Literal["kill", "stop", "hold"] = "kill"
    delay: float = 0.0  # of `while_committing` only: seconds into the call


WARM = Fault("before_opening", action="stop")  # a spare worker: loaded, verified, warm, and unknown to Kafka


class Service:
    """One worker. `settings` are dotted names of the design's table; the worker's name is stable over restarts.

    Args:
        folder: working directory, without .env or downtick.toml; holds the log.
        name: of log and marker, where two processes carry one worker's name after each other.
        plan: what tests/support/launcher.py shall do to it (a fault at a step); None: `python -m consumer.cli run`."""

    def __init__(self, folder: Path, settings: Mapping[str, str], *, worker: str = "one", name: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.worker, self.name = folder, worker, name or worker
        self.port = free_port()
        self.settings = {"worker": worker, "http.port": str(self.port), **settings}
        self.log = folder / f"{self.name}.log"
        self.marker = folder / f"{self.name}.step"
        self._held = folder / f"{self.name}.step.held"
        self._process: Process | None = None

    def start(
        self,
        *options: str,
        faults: Sequence[Fault] | None = None,
        not_finite: float | None = None,
        forked: bool = True,
        **settings: str,
    ) -> "Service":
        """Start the process, without waiting; `settings` (with __ for dots) are this start's.

        With `faults` (an empty list too) it runs in the launcher, which tells the step it is in, and there
        `not_finite` is a value for which its model has no finite answer. Not `forked` it is the command as users type
        it, without faults."""
        assert self._process is None or not self._process.running, "it runs already"
        given = self.settings | {name.replace("__", "."): value for name, value in settings.items()}
        env = {name: value for name, value in os.environ.items() if not name.upper().startswith("DOWNTICK_")}
        env |= {"DOWNTICK_" + name.replace(".", "__").upper(): value for name, value in given.items()}
        env |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # without compiled bytecode TensorFlow takes twice as long
        arguments = ["consumer.cli", "run", *options]
        if faults is not None:
            self.marker.unlink(missing_ok=True)
            plan = {"marker": str(self.marker), "faults": [asdict(fault) for fault in faults], "not_finite": not_finite}
            arguments = ["tests.support.launcher", json.dumps(plan), "run", *options]
        # Its own folder is the working directory: no .env and no downtick.toml of a developer gets in.
        if forked:
            self._process = Forked(arguments, log=self.log, env=env, cwd=self.folder)
        else:
            self._process = Process([sys.executable, "-m", *arguments], log=self.log, env=env, cwd=self.folder)
        return self

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def step(self) -> str:
        """The step that the launcher's marker shows: the one that runs, or ran when the process was killed."""
        try:
            return self.marker.read_bytes().rstrip(b"\0").decode()
        except FileNotFoundError:
            return "starting"

    # --- what it says over HTTP

    def get(self, path: str, timeout: float = 2) -> tuple[int, str]:
        """Status and body; (0, reason) when nobody answers, or not to the end."""
        try:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @property
    def ready(self) -> bool:
        return self.get("/ready")[0] == 200

    @property
    def live(self) -> bool:
        return self.get("/live")[0] == 200

    def wait_ready(self, within: float = 60) -> "Service":
        """Until /ready says so; fails at once when the process ends."""

        def ready() -> bool:
            assert self.process.running, f"it ended with {self.process.exit_code}\n{self.process.tail()}"
            return self.ready

        wait_until(ready, within=within, what=lambda: f"{self.name} ready: {self.get('/ready')}\n{self.process.tail()}")
        return self

    def wait_not_ready(self, within: float = 30) -> None:
        wait_until(lambda: not self.ready, within=within, what=f"{self.name} not ready")

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All samples by (name, sorted labels)."""
        status, text = self.get("/metrics", timeout=5)
        assert status == 200, (status, text)
        found = {}
        for line in text.splitlines():
            match = _SAMPLE.match(line)
            if match and not line.startswith("#"):
                found[match[1], tuple(sorted(_LABEL.findall(match[2] or "")))] = float(match[3])
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Sum over the samples that carry these labels; 0 when there is none. `name` without the prefix."""
        wanted = set(labels.items())
        return sum(
            value
            for (sample, has), value in self.metrics().items()
            if sample == f"downtick_{name}" and wanted <= set(has)
        )

    # --- its end

    def terminate(self, within: float = 10) -> None:
        """SIGTERM: it exits with 0 within the ten seconds that the design promises."""
        code = self.process.terminate(within)
        assert code == 0, f"exit code {code}\n{self.process.tail()}"

    def kill(self) -> None:
        self.process.kill()

    def wait_for_fault(self, within: float = 90) -> str:
        """Until the planned fault has struck (killed or stopped itself); the step it struck at."""

        def struck() -> bool:
            return self.process.state() in {"T", "Z"}

        wait_until(
            struck, within=within, what=lambda: f"fault in {self.name} at step {self.step()}\n{self.process.tail()}"
        )
        if self.process.state() == "Z":
            assert self.process.wait(5) == -signal.SIGKILL, f"it ended otherwise\n{self.process.tail()}"
        return self.step()

    def wait_until_held(self, within: float = 90) -> str:
        """Until the planned fault holds the engine's thread; the step it stands at."""
        wait_until(
            self._held.exists,
            within=within,
            what=lambda: f"{self.name} held, at step {self.step()}\n{self.process.tail()}",
        )
        return self.step()

    def let_go(self) -> None:
        """The held thread goes on."""
        self._held.unlink()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()

    def says(self, text: str) -> bool:
        """Whether its log has this text."""
        return self.log.exists() and text in self.log.read_text(encoding="utf-8", errors="replace")
