"""Programs that need not import TensorFlow again: each is forked off one process that did that and nothing else
(warm.py). It saves three of the five seconds that a worker's start takes of a core, a hundred times in all.

Such a program runs as `python -m MODULE …` does: a process in a session of its own, with its own arguments,
environment, working directory and log; it is killed, stopped and reaped alike."""

import faulthandler
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
# Found from the project's folder, where tests are run; elsewhere programs import TensorFlow themselves, as they would.
_context.set_forkserver_preload(["tests.support.warm"])
_lock = threading.Lock()  # each start polls all children, and two polls of one lose its exit code


class Fork:
    """What `subprocess.Popen` gives, as far as processes.py asks."""

    def __init__(self, args: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        """`args`: the module, and its arguments."""
        with _lock:
            self._process = _context.Process(target=_run, args=(list(args), log, dict(env), cwd), daemon=True)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        with _lock:
            return self._process.exitcode

    def wait(self, timeout: float) -> int:
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return code


def _run(args: list[str], log: Path, env: dict[str, str], cwd: Path) -> None:
    """The program, in the forked process."""
    os.setsid()
    for target, file, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        opened = os.open(file, flags, 0o644)
        os.dup2(opened, target)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    faulthandler.enable()
    sys.argv = args
    runpy.run_module(args[0], run_name="__main__", alter_sys=True)
