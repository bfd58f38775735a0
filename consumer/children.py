"""Child processes that cannot outlive us: started, watched, stopped in order, and killed by the kernel if we are."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _killed_with(parent: int) -> Callable[[], None] | None:
    """What a new child does first: ask the kernel to kill it when we die, by kill -9 too. Linux only."""
    if _LIBC is None:
        return None
    libc = _LIBC

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # we died before the kernel was asked
            os._exit(1)

    return ask


class Child:
    """One process, its output appended to a file, its life bound to ours.

    The kernel counts the death of the thread that called `spawn` as ours: call it from a thread that stays.

    Args:
        command: program and arguments. `environ` and `cwd` are ours where they are None.
        noise: lines of its output that hold this text are left out when the last ones are told."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        noise: str = "",
    ) -> None:
        self.name, self.log, self._noise = name, log, noise
        self._command, self._environ, self._cwd = list(command), environ, cwd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running or last process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start the process and return at once."""
        if self.alive():
            raise RuntimeError(f"{self.name} is running already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._cwd,
                process_group=0,  # a Ctrl-C in the terminal is for us: we stop them in order
                preexec_fn=_killed_with(os.getpid()),  # noqa: PLW1509 - one call into libc, nothing that could hold a lock
            )

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Block until `ready()`; raises CommandError with the last lines of the log if it dies or takes too long."""
        deadline = time.monotonic() + timeout
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {timeout:.0f} s")
            time.sleep(0.02)

    def check(self) -> None:
        """Raise CommandError with the last lines of the log if the process has ended."""
        if not self.alive():
            code = "" if self._process is None else f" (exit code {self._process.returncode})"
            raise self.failure(f"has ended{code}")

    def failure(self, what: str) -> CommandError:
        """An error about this child that ends in the last lines of its log."""
        lines = "\n    ".join(self.last_lines(20)) or "(nothing)"
        return CommandError(f"{self.name} {what}; its last lines:\n    {lines}")

    def last_lines(self, count: int) -> list[str]:
        """The end of its output."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if not self._noise or self._noise not in line][-count:]

    def wait(self, timeout: float) -> int:
        """Block until it has ended by itself, and give its exit code; raises TimeoutExpired of subprocess."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.wait(timeout)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is running."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone. Nothing happens if it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, and kill -9 if it is still there after `timeout` seconds. Nothing happens if it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        except BaseException:  # a second Ctrl-C: no more patience, but nothing stays behind either
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
