"""The wish to stop, from signals and with its budget of time."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from consumer.stop import PENDING_SECONDS, SHUTDOWN_SECONDS, Stop


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Codes with which the process would have ended at once; our own handlers are put back."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield codes
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nobody_asked_yet() -> None:
    stop = Stop()
    assert not stop.asked()
    assert stop.left() == float("inf")
    assert not stop.wait(0)


def test_the_first_wish_counts_and_starts_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stop = Stop()
    stop.ask()
    assert stop.asked()
    assert stop.wait(0)
    assert (stop.left(), stop.left(10.0)) == (PENDING_SECONDS, 10.0)
    now = 103.0
    stop.ask()
    assert stop.left(10.0) == 7.0
    now = 200.0
    assert stop.left(10.0) == 0.0


def test_what_is_in_hand_gets_less_than_all_of_the_time() -> None:
    assert 0 < PENDING_SECONDS < SHUTDOWN_SECONDS == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_a_second_one_ends_at_once(exits: list[int], number: signal.Signals) -> None:
    stop = Stop()
    stop.listen()
    stop.joining()
    signal.raise_signal(number)
    assert stop.asked()
    assert exits == []
    signal.raise_signal(signal.SIGTERM)
    assert exits == [143]


def test_a_signal_before_anything_was_begun_ends_at_once_in_order(exits: list[int]) -> None:
    stop = Stop()
    stop.listen()
    signal.raise_signal(signal.SIGTERM)
    assert exits[0] == 0
