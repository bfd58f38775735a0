"""The training loop: what it keeps, that it repeats itself, and how it ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from model import network
from model.examples import Examples, make
from model.features import features
from model.fit import CannotFit, Fitted, Progress, fit
from model.inputs import Inputs
from model.labels import HALF
from model.manifest import Architecture, LabelRule
from model.step import step_for
from model.workers import LEAVE, _listen, agreed, fit_together, weights_hash
from tests.unit.model.series import table, walks

INPUTS, SMALL = Inputs(16), Architecture(units=8)


def examples(steps: int = 400, inputs: Inputs = INPUTS) -> Examples:
    return make(table(walks(4, steps)), LabelRule(rule="regime", look_ahead=HALF), inputs)


def held_out() -> Examples:
    return make(table(walks(3, 200, seed=7)), LabelRule(rule="regime", look_ahead=HALF), INPUTS)


@pytest.mark.parametrize("kind", ["lstm", "dense"])
def test_it_learns_and_answers_what_keras_answers(kind: str) -> None:
    data, architecture = examples(), Architecture.model_validate({"kind": kind, "units": 8})
    told: list[Progress] = []
    fitted = fit(data, None, architecture, epochs=6, learning_rate=0.01, report=told.append)
    ends = [step for step in told if step.best is not None]
    assert [step.epoch for step in ends] == [1, 2, 3, 4, 5, 6]
    assert ends[-1].flag_loss < 0.8 < ends[0].flag_loss  # 1 is the base rate's
    answers = fitted.answers(data)
    p, change = network.run(INPUTS, architecture, fitted.weights, features(data.windows(), INPUTS).x)
    np.testing.assert_allclose(answers.probability, p, atol=1e-5)
    np.testing.assert_allclose(answers.change, change, atol=1e-5)


def test_the_epoch_with_the_lowest_held_out_log_loss_is_kept_and_patience_ends_it() -> None:
    fitted = fit(examples(), held_out(), SMALL, epochs=60, patience=2, learning_rate=0.03)
    losses = [step.held_out for step in fitted.history]
    assert all(loss is not None for loss in losses)
    best = int(np.argmin(np.array(losses, np.float64))) + 1
    assert fitted.epochs == (best,)
    assert len(losses) == best + 2 < 60


def test_the_same_seed_gives_the_same_weights_in_another_process_and_another_seed_other_ones() -> None:
    code = (
        "from tests.unit.model.test_fit import SMALL, examples; from model.fit import fit; from model.workers import "
        "weights_hash; print(weights_hash(fit(examples(), None, SMALL, epochs=2, seed=3).weights))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.strip() == weights_hash(fit(examples(), None, SMALL, epochs=2, seed=3).weights)
    assert run.stdout.strip() != weights_hash(fit(examples(), None, SMALL, epochs=2, seed=4).weights)


def test_members_are_the_networks_of_the_seeds_that_follow_and_are_averaged() -> None:
    data = examples(200)
    both = fit(data, None, SMALL.model_copy(update={"members": 2}), epochs=1, seed=5)
    single = [fit(data, None, SMALL, epochs=1, seed=seed) for seed in (5, 6)]
    for name, weights in both.weights.items():
        assert np.array_equal(weights, np.concatenate([one.weights[name] for one in single]))
    p, q, mean = (one.answers(data).probability for one in (*single, both))
    logits = np.log(p / (1 - p)) / 2 + np.log(q / (1 - q)) / 2
    np.testing.assert_allclose(mean, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert both.epochs == (1, 1)


def test_an_interrupt_keeps_the_best_so_far() -> None:
    def interrupt(step: Progress) -> None:
        if step.epoch == 2 and step.best is not None:
            raise KeyboardInterrupt

    data = examples()
    fitted = fit(data, held_out(), SMALL, epochs=9, report=interrupt)
    assert fitted.interrupted
    whole = fit(data, held_out(), SMALL, epochs=2)
    assert weights_hash(fitted.weights) == weights_hash(whole.weights)


def test_an_interrupt_while_a_member_is_built_keeps_those_that_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    build = step_for

    def second(*shape: Any) -> Any:
        built.append(1)
        if len(built) == 2:
            raise KeyboardInterrupt
        return build(*shape)

    monkeypatch.setattr("model.fit.step_for", second)
    fitted = fit(examples(), None, SMALL.model_copy(update={"members": 3}), epochs=1)
    assert (fitted.interrupted, fitted.epochs, fitted.architecture.members) == (True, (1,), 1)


def test_an_interrupt_before_the_first_epoch_is_over_leaves_nothing() -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    data = replace(examples(), label=examples().label)
    with pytest.raises(CannotFit, match="nothing to keep"):
        fit(data, None, SMALL, epochs=1, batch=4, report=lambda step: interrupt(step) if step.best is None else None)


def test_a_loss_that_is_no_number_ends_training_with_the_way_on() -> None:
    with pytest.raises(CannotFit, match=r"not a number after \d+ batches of epoch \d.*smaller --learning-rate"):
        fit(examples(), None, SMALL, epochs=3, learning_rate=1e38)


def test_when_the_loss_is_found_to_be_no_number_is_no_matter_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that train together must end at the same batch."""

    def told(seconds: float) -> str:
        monkeypatch.setattr("model.fit.TOLD_SECONDS", seconds)
        with pytest.raises(CannotFit) as error:
            fit(examples(), None, SMALL, epochs=3, batch=4, learning_rate=1e38)
        return str(error.value)

    assert told(0.0) == told(1e9)
    assert "not a number after 50 batches of epoch 1" in told(0.0)


def test_unknown_answers_weigh_nothing() -> None:
    data = examples(200)
    unknown = data.take(np.isfinite(data.label))
    dropped = replace(unknown, label=np.where(np.arange(len(unknown)) % 2, unknown.label, np.nan).astype(np.float32))
    blind = replace(unknown, target=np.full(len(unknown), np.nan))
    fitted: list[Fitted] = [fit(part, None, SMALL, epochs=1) for part in (unknown, dropped, blind)]
    assert len({weights_hash(one.weights) for one in fitted}) == 3
    assert not fitted[2].weights["change_kernel"].any()  # nothing was ever said of the change


def test_several_processes_end_with_equal_weights_close_to_those_of_one() -> None:
    data, validation = examples(), held_out()
    told: list[Progress] = []
    together = fit_together(2)(data, validation, SMALL, epochs=2, seed=2, batch=96, report=told.append)
    alone = fit(data, validation, SMALL, epochs=2, seed=2, batch=96)
    assert [step.epoch for step in told if step.best is not None] == [1, 2]
    for name, weights in alone.weights.items():
        np.testing.assert_allclose(together.weights[name], weights, atol=2e-3)
    p, q = together.answers(validation).probability, alone.answers(validation).probability
    np.testing.assert_allclose(p, q, atol=1e-3)


def test_processes_that_end_with_different_weights_are_told() -> None:
    one = Fitted(INPUTS, SMALL, {"change_bias": np.zeros((1, 1), np.float32)}, (1,))
    other = replace(one, weights={"change_bias": np.full((1, 1), 1e-7, np.float32)})
    assert agreed([one, one]) is one
    with pytest.raises(CannotFit, match="ended with different weights"):
        agreed([one, other])


def trainer(rank: int) -> int:
    """The number of the process."""
    (process,) = (one for one in multiprocessing.active_children() if one.name == f"trainer-{rank}")
    assert process.pid is not None
    return process.pid


def test_a_process_that_is_killed_ends_training_with_a_line_and_none_is_left() -> None:
    killed_at: list[float] = []

    def kill(_: Progress) -> None:
        if not killed_at:
            killed_at.append(time.monotonic())
            os.kill(trainer(1), signal.SIGKILL)

    with pytest.raises(CannotFit, match=r"^process 1 died \(SIGKILL\)$"):
        fit_together(2)(examples(), None, SMALL, epochs=100_000, report=kill)
    assert time.monotonic() - killed_at[0] < 2 * LEAVE
    assert not multiprocessing.active_children()


def test_a_process_that_stands_still_holds_nobody_who_asks_twice() -> None:
    asked_at: list[float] = []

    def stand_still(_: Progress) -> None:
        os.kill(trainer(1), signal.SIGSTOP)
        threading.Timer(2.0, signal.raise_signal, (signal.SIGINT,)).start()
        asked_at.append(time.monotonic())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together(2)(examples(), None, SMALL, epochs=100_000, report=stand_still)
    assert 1 < time.monotonic() - asked_at[0] < 2 + 2 * LEAVE
    assert not multiprocessing.active_children()


def listening(count: int) -> tuple[list[Connection], list[Connection]]:
    """Ours and theirs."""
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(count)]
    return [ours for ours, _ in pipes], [theirs for _, theirs in pipes]


STEP = Progress(1, 9, 1, 9, 1.0, 1.0)
FITTED = Fitted(INPUTS, SMALL, {}, (1,))


def test_progress_is_read_as_fast_as_it_comes_however_many_say_nothing() -> None:
    """Or the pipe of the one that tells it fills up."""
    ours, theirs = listening(16)
    told: list[Progress] = []

    def tell(step: Progress) -> None:
        told.append(step)
        if len(told) == 20:
            for pipe in theirs:
                pipe.send(FITTED)

    for _ in range(20):
        theirs[0].send(STEP)
    begin = time.monotonic()
    assert len(_listen([], ours, tell, multiprocessing.Event())) == 16
    assert time.monotonic() - begin < 2  # it took 0.05 s for each that was silent, 15 s in all


def test_an_interrupt_between_a_results_receipt_and_its_keeping_does_not_lose_it() -> None:
    class Interrupted(Connection):
        def recv(self) -> object:
            found = super().recv()
            signal.raise_signal(signal.SIGINT)
            return found

    (ours, other), theirs = listening(2)
    pipe = Interrupted(os.dup(ours.fileno()), writable=False)
    for one in theirs:
        one.send(FITTED)
    before, stop = signal.getsignal(signal.SIGINT), multiprocessing.Event()
    assert len(_listen([], [pipe, other], lambda _: None, stop)) == 2
    assert signal.getsignal(signal.SIGINT) is before


# Prints each epoch as it ends, then what is kept; it fails if the weights of the two differ.
TRAINING = """
import numpy as np
from model.workers import fit_together
from tests.unit.model.test_fit import SMALL, examples, held_out

def tell(step):
    if step.best is not None:
        print(step.epoch, flush=True)

fitted = fit_together(2)(examples(), held_out(), SMALL, epochs=100_000, patience=100_000, report=tell)
losses = [step.held_out for step in fitted.history]
print(fitted.interrupted, len(losses), fitted.epochs[0] == 1 + int(np.argmin(losses)))
"""


def test_ctrl_c_keeps_the_best_epoch_of_two_processes_with_equal_weights() -> None:
    command = [sys.executable, "-c", TRAINING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout is not None
        while (line := run.stdout.readline()) and line != "3\n":
            pass
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to all of them
        *_, last = run.communicate(timeout=60)[0].splitlines()
    interrupted, epochs, best = last.split()
    assert (run.returncode, interrupted, best) == (0, "True", "True")
    assert 3 <= int(epochs) < 100_000
