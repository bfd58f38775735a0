import io
import json
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from consumer import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logs.conceal(())


def logged(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, message: str, **extra: object) -> str:
    monkeypatch.setattr("sys.stderr", stderr)
    logs.configure()
    logging.getLogger("consumer.engine").warning(message, extra=extra)
    return stderr.getvalue()


def test_a_machine_gets_one_json_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = logged(monkeypatch, io.StringIO(), "partition\nseated", partition=3, next_offset=12, url=SecretStr("x"))
    line = json.loads(text)
    assert text.count("\n") == 1
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "consumer.engine",
        "message": "partition\nseated",
        "partition": 3,
        "next_offset": 12,
        "url": "**********",
    }


def test_a_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = logged(monkeypatch, Terminal(), "partition seated", partition=3)
    assert text.endswith(" warning partition seated  partition=3\n")


@pytest.mark.parametrize("stderr", [io.StringIO(), Terminal()])
def test_a_concealed_secret_is_in_no_line_not_even_in_a_traceback(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO
) -> None:
    monkeypatch.setattr("sys.stderr", stderr)
    logs.configure()
    logs.conceal({"hunter2", "redis://:hunter2@h"})
    try:
        raise ValueError("cannot parse redis://:hunter2@h")
    except ValueError:
        logging.getLogger("x").exception("with hunter2", extra={"password": "hunter2"})
    assert "hunter2" not in stderr.getvalue()
    assert "ValueError: cannot parse **********" in stderr.getvalue()


def test_configuring_twice_does_not_print_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    logs.configure()
    assert logged(monkeypatch, stderr, "once").count("once") == 1


def test_librdkafkas_line_about_a_broker_that_is_away_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    logs.configure()
    for milliseconds in (0, 3, 7):
        logging.getLogger("consumer.librdkafka").error(
            "FAIL [w1#consumer-1] 127.0.0.1:9: Connect failed (after %dms in state CONNECT)", milliseconds
        )
        logging.getLogger("consumer.engine").info("ready")
    logging.getLogger("consumer.librdkafka").error("FAIL [w1#producer-2] 127.0.0.1:9: Connect failed (after 1ms …)")
    messages = [json.loads(line)["message"][:19] for line in stderr.getvalue().splitlines()]
    assert messages == ["FAIL [w1#consumer-1", "ready", "ready", "ready", "FAIL [w1#producer-2"]
