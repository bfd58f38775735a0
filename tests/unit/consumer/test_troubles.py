"""Troubles: what /ready tells, and one line of log for each that comes or goes."""

import logging

import pytest

from consumer.troubles import Troubles


def test_each_trouble_is_told_until_its_own_success(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    assert troubles.texts == ()
    with caplog.at_level(logging.INFO, logger="consumer.troubles"):
        troubles.set("Redis does not answer", "timed out")
        troubles.set("no transaction coordinator", "_TIMED_OUT")
        troubles.set("Redis does not answer", "connection refused")  # another cause of the same trouble: no new line
        assert troubles.texts == ("Redis does not answer: connection refused", "no transaction coordinator: _TIMED_OUT")
        assert "Redis does not answer" in troubles
        troubles.clear("Redis does not answer")
        troubles.clear("Redis does not answer")
        troubles.clear("never there")
    assert troubles.texts == ("no transaction coordinator: _TIMED_OUT",)
    assert "Redis does not answer" not in troubles
    assert [record.getMessage() for record in caplog.records] == [
        "Redis does not answer: timed out; waiting",
        "no transaction coordinator: _TIMED_OUT; waiting",
        "Redis does not answer: over",
    ]


def test_what_a_reader_holds_does_not_change_under_it() -> None:
    troubles = Troubles()
    troubles.set("a", "1")
    before = troubles.texts
    troubles.set("b", "2")
    assert before == ("a: 1",)
