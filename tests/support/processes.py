"""Child processes of the tests: started in their own session, logged to a file, and never left behind.

A warden process holds the read end of a pipe whose only writer is this process. However the tests end (a failed
assertion, a timeout's `os._exit`, `kill -9`), the pipe closes and the warden kills what is still alive. Linux's parent
death signal would not do: it fires when the *thread* that started the child ends, and tests start some from pools."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.support.forks import Fork

T = TypeVar("T")

_WARDEN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
alive = set()
for line in sys.stdin:
    sign, pid = line[0], int(line[1:])
    (alive.add if sign == "+" else alive.discard)(pid)
for pid in alive:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
"""


class _Warden:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def tell(self, sign: str, pid: int) -> None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-c", _WARDEN], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{sign}{pid}\n")
            self._process.stdin.flush()


_warden = _Warden()


def wait_until(condition: Callable[[], T], *, within: float, what: str | Callable[[], str], every: float = 0.05) -> T:
    """The first truthy value of `condition()`; AssertionError naming `what` once `within` seconds have passed."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(every)


class Process:
    """One child process in a session of its own; stdout and stderr go to `log`, appended over restarts."""

    def __init__(
        self, args: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._child = self._start(args, dict(os.environ if env is None else env), cwd or Path.cwd())
        self.pid = self._child.pid
        _warden.tell("+", self.pid)

    def _start(self, args: Sequence[str], env: Mapping[str, str], cwd: Path) -> "subprocess.Popen[bytes] | Fork":
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                list(args),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative the signal that ended it."""
        code = self._child.poll()
        if code is not None:
            _warden.tell("-", self.pid)
        return code

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def signal(self, number: signal.Signals) -> None:
        """Deliver a signal; nothing when it has ended already."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL its whole session, and reap it."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait(10)
        _ = self.exit_code

    def terminate(self, within: float) -> int:
        """SIGTERM; the exit code. AssertionError (after a SIGKILL) when it did not end in time."""
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def wait(self, within: float) -> int:
        try:
            code = self._child.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"pid {self.pid} did not end within {within:g} s\n{self.tail()}") from None
        _warden.tell("-", self.pid)
        return code

    def stop(self) -> None:
        """SIGSTOP; returns once the kernel says that it is stopped."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self.state() in {"T", "Z"}, within=5, what=f"pid {self.pid} stopped", every=0.005)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def state(self) -> str:
        """The kernel's letter: R, S, D, T (stopped), Z (ended, not reaped); `Z` when it is gone. Linux only."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except OSError:
            return "Z"

    def tail(self, lines: int = 40) -> str:
        """The end of its log, for a failure's message."""
        text = self.log.read_bytes()[-64_000:].decode(errors="replace").splitlines()
        return "\n".join([f"--- {self.log.name}", *text[-lines:]])


class Forked(Process):
    """A Python module that has TensorFlow already (forks.py); `args`: its name, and its arguments."""

    def _start(self, args: Sequence[str], env: Mapping[str, str], cwd: Path) -> Fork:
        return Fork(args, log=self.log, env=env, cwd=cwd)
