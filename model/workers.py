"""Training on several processes of this machine: each takes its rows of every batch, gradients are summed.

The processes form a cluster of TensorFlow's own (MultiWorkerMirroredStrategy, ring all-reduce over local ports); the
loop is fit.py's, because Keras's own `fit` under that strategy has open bugs. Every process starts from the same seed
and applies the same sums, so their weights stay equal: at the end their hashes are compared. The examples are written
once to a temporary folder and mapped by all.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import signal
import socket
import tempfile
import threading
from dataclasses import fields
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from model.examples import Examples
from model.fit import CannotFit, Fitted, Progress, Share, fit
from model.runtime import join_cluster, tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Event

    from model.inputs import Inputs
    from model.manifest import Architecture
    from model.network import Arrays

LEAVE = 5.0  # seconds for a process that has said all to leave by itself, or for one that is killed to be gone
_ARRAYS = [f.name for f in fields(Examples) if f.name != "inputs"]


def fit_together(workers: int) -> Callable[..., Fitted]:
    """`fit` on so many processes; same arguments but `share`, same result up to the order in which sums are rounded.

    An interrupt ends training as it ends `fit`; a second one does not wait for that. Raises (when called): CannotFit,
    also if a process dies or the weights differ at the end.
    """

    def run(
        train: Examples,
        validation: Examples | None,
        architecture: Architecture,
        *,
        report: Callable[[Progress], None] = lambda _: None,
        **options: Any,
    ) -> Fitted:
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        cluster = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
        with tempfile.TemporaryDirectory(prefix="downtick-train-") as folder:
            _save(Path(folder) / "train", train)
            if validation is not None:
                _save(Path(folder) / "validation", validation)
            pipes, processes = [], []
            for rank in range(workers):
                ours, theirs = context.Pipe(duplex=False)
                what = (rank, cluster, Path(folder), train.inputs, architecture, options, theirs, stop)
                processes.append(context.Process(target=_work, args=what, name=f"trainer-{rank}", daemon=True))
                pipes.append((ours, theirs))
            try:
                with _uninterrupted():
                    for process, (_, theirs) in zip(processes, pipes, strict=True):
                        process.start()
                        theirs.close()
                fitted = _listen(processes, [ours for ours, _ in pipes], report, stop)
                for process in processes:
                    process.join(LEAVE)
            finally:  # one that waits for another that failed, died or was stopped would wait for ever
                for process in processes:
                    if process.pid is not None:
                        process.kill()
                        process.join(LEAVE)
        return agreed(fitted)

    return run


def weights_hash(weights: Arrays) -> str:
    """SHA-256 of weights: names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].shape} ".encode() + np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def _listen(
    processes: Sequence[BaseProcess], pipes: Sequence[Connection], report: Callable[[Progress], None], stop: Event
) -> list[Fitted]:
    """What each process ends with; the first one's progress on the way. An interrupt asks all of them to stop, a second
    one is raised. Raises: CannotFit as soon as one fails, because the others then wait for it."""
    results: dict[int, Fitted] = {}
    with _Interrupts() as interrupts:
        while len(results) < len(pipes):
            if interrupts.asked:
                stop.set()
            # All that are ready, at once: a pipe that is not emptied fills up, and its process stands with all others.
            ready = wait([pipe for rank, pipe in enumerate(pipes) if rank not in results], 0.05)
            for rank, pipe in enumerate(pipes):
                if pipe not in ready:
                    continue
                try:
                    said = pipe.recv()
                except EOFError:
                    processes[rank].join(LEAVE)  # until its exit code is known
                    said = f"process {rank} died"
                if isinstance(said, Progress):
                    try:
                        report(said)
                    except KeyboardInterrupt:
                        interrupts.hear()
                elif isinstance(said, Fitted):
                    results[rank] = said
                else:
                    raise said if isinstance(said, CannotFit) else CannotFit(_died(processes) or said)
    return [results[rank] for rank in range(len(pipes))]


class _Interrupts:
    """A context in which the first interrupt is only noted: raised wherever it finds the listener, between a message's
    receipt and its keeping say, it would lose a result. The second is raised. Elsewhere than in the main thread, and
    where interrupts are ignored, there are none."""

    asked = False

    def hear(self, *_: object) -> None:
        """Note it, or raise KeyboardInterrupt."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        self._taken = callable(self._before) and threading.current_thread() is threading.main_thread()
        if self._taken:
            signal.signal(signal.SIGINT, self.hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken:
            signal.signal(signal.SIGINT, self._before)


def _died(processes: Sequence[BaseProcess]) -> str:
    """Which process died without a word, if one did: it is why others fail, whoever is heard first."""
    for rank, process in enumerate(processes):
        if process.exitcode:
            return f"process {rank} died ({_exit(process.exitcode)})"
    return ""


def _exit(code: int) -> str:
    """A process's exit code in words."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Interrupts wait until the end. A process that is started meanwhile has them wait until it refuses them: Ctrl-C in
    a terminal goes to all, and would end it while it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def agreed(fitted: Sequence[Fitted]) -> Fitted:
    """What all processes ended with. Raises: CannotFit if their weights differ."""
    hashes = [weights_hash(one.weights) for one in fitted]
    if len(set(hashes)) != 1:
        raise CannotFit(f"the processes ended with different weights: {', '.join(found[:12] for found in hashes)}")
    return fitted[0]


def _work(
    rank: int,
    cluster: list[str],
    folder: Path,
    inputs: Inputs,
    architecture: Architecture,
    options: dict[str, Any],
    pipe: Connection,
    stop: Event,
) -> None:
    """One process. Interrupts are the parent's to take: all must stop at the same step, or one waits for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    join_cluster(cluster, rank)
    try:
        share = Share(rank, len(cluster), _all_reduce(stop))
        train, held = _load(folder / "train", inputs), folder / "validation"
        validation = _load(held, inputs) if held.exists() else None
        report = pipe.send if rank == 0 else lambda _: None
        pipe.send(fit(train, validation, architecture, report=report, share=share, **options))
    except CannotFit as error:
        pipe.send(error)
    except Exception as error:  # noqa: BLE001  the parent tells it
        pipe.send(f"process {rank} failed: {type(error).__name__}: {error}")


def _all_reduce(stop: Event) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """The sum over all processes; also takes the wish to stop to all of them at the same step."""
    tf = tensorflow()
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)

    def summed(tensors: list[Any]) -> list[Any]:
        # As one vector, because each call is a round of messages; through `reduce`, because the replica context's
        # all_reduce refuses a strategy of CPUs ("destinations can not be empty").
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        total = strategy.reduce("SUM", strategy.run(lambda one: one, args=(flat,)), axis=None)
        parts = tf.split(total, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    compiled = tf.function(summed, autograph=False)

    def add(tensors: Sequence[Any]) -> Sequence[Any]:
        *found, wishes = compiled([*tensors, tf.constant(float(stop.is_set()))])
        if float(wishes) > 0:
            raise KeyboardInterrupt
        return list(found)

    return add


def _save(folder: Path, examples: Examples) -> None:
    folder.mkdir()
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(examples, name), allow_pickle=False)


def _load(folder: Path, inputs: Inputs) -> Examples:
    return Examples(inputs, **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS})


def _free_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    return iter(ports)
