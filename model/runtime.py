"""TensorFlow, started in one place: quiet, and with its threads set before anything runs.

One thread inside an operation: parallelism comes from whole chunks of rows on Python threads (predictor.py), which
scales better than splitting small matrices, and results cannot depend on how work was divided.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)


@cache
def tensorflow() -> Any:
    """The tensorflow module (untyped), imported and configured at the first call, which takes about two seconds.

    Call it first from the main thread: for the time of the import the process's stderr is held back, and shown only
    if the import fails. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows everything TensorFlow has to say.
    """
    with _quiet():
        tf = importlib.import_module("tensorflow")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every network that is compiled anew
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # something else in this process has already run an operation
        logger.warning("TensorFlow had started before downtick could set its threads; predictions will be slower")
    return tf


def join_cluster(addresses: list[str], rank: int) -> None:
    """Make this process one of a TensorFlow cluster; before `tensorflow` is called for the first time."""
    task = {"type": "worker", "index": rank}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})


def keras() -> Any:
    """The keras module (untyped) on the TensorFlow backend. Training and checks only; serving never calls it."""
    tensorflow()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet():
        return importlib.import_module("keras")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what C++ writes to stderr: the first lines of an import ignore every log level."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    try:
        stderr = os.dup(2)
    except OSError:  # started without a stderr: nothing to hold back
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        try:
            os.dup2(held.fileno(), 2)
            yield
        except BaseException:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def default_threads() -> int:
    """How many threads predict with many rows: the cores this process may use, two at most."""
    return max(1, min(2, usable_cores()))


def usable_cores() -> int:
    """Cores this process may run on; a container's CPU quota counts (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores
