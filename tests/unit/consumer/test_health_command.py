"""The probe's exit code is the service's answer, and it starts fast enough to be asked every second."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from consumer.cli import main
from consumer.commands import health
from consumer.http import HttpServer
from consumer.sandbox import free_port
from consumer.settings import Http
from consumer.settings_sources import load_settings


@contextmanager
def service(answers: dict[str, tuple[int, bytes]]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("DOWNTICK_"):
            monkeypatch.delenv(name)


def test_ready_and_live_are_different_questions(capsys: pytest.CaptureFixture[str]) -> None:
    troubles = ["Redis is away: refused\x1b[2J", "partition 3 is being restored"]
    server = HttpServer("127.0.0.1", 0, CollectorRegistry(), beat=time.monotonic, troubles=lambda: tuple(troubles))
    try:
        url = f"http://127.0.0.1:{server.port}"
        assert main(["health", "--url", url]) == 1
        assert main(["health", "--url", url, "--live"]) == 0
        troubles.clear()
        assert main(["health", "--url", url]) == 0
    finally:
        server.close()
    assert capsys.readouterr().out.splitlines() == [
        f"{url}/ready: not ready: Redis is away: refused [2J; partition 3 is being restored",
        f"{url}/live: alive",
        f"{url}/ready: ready",
    ]


def test_something_else_that_listens_there_is_shown_as_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with service({"/ready": (404, b"no\nsuch page\x1b[2J")}) as port:
        assert main(["health", "--url", f"127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().out == f"http://127.0.0.1:{port}/ready: 404 no such page [2J\n"


def test_the_address_is_the_one_of_the_services_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with service({"/ready": (200, b"ready")}) as port:
        monkeypatch.setenv("DOWNTICK_HTTP__HOST", "0.0.0.0")  # noqa: S104 - asked for, not bound
        monkeypatch.setenv("DOWNTICK_HTTP__PORT", str(port))
        assert main(["health"]) == 0
        monkeypatch.delenv("DOWNTICK_HTTP__PORT")
        (tmp_path / ".env").write_text(f"DOWNTICK_HTTP__PORT={port}\n", encoding="utf-8")
        assert main(["health"]) == 0


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        ({}, {}),
        ({"DOWNTICK_HTTP__HOST": "10.1.2.3", "DOWNTICK_HTTP__PORT": "81"}, {}),
        ({"DOWNTICK_HTTP__PORT": "81"}, {".env": "DOWNTICK_HTTP__PORT=82\nDOWNTICK_HTTP__HOST=10.0.0.1"}),
        ({}, {"downtick.toml": "[http]\nport = 83"}),
        ({"DOWNTICK_HTTP__PORT_FILE": "port"}, {"port": "84\n"}),
    ],
)
def test_the_short_way_to_the_address_agrees_with_the_settings(
    environ: dict[str, str], files: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    http = load_settings().http
    assert health._from_settings() == (http.host, http.port)
    assert (Http().host, Http().port) == (health._HOST, health._PORT)


def test_no_answer_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("DOWNTICK_HTTP__PORT", str(port))
    assert main(["health"]) == 1
    assert capsys.readouterr().err == (
        f"downtick health: http://127.0.0.1:{port}/ready: Connection refused\n"
        "  is the service running, and is this its http.port?\n"
    )


@pytest.mark.parametrize("url", ["https://x", "http://", "http://x:99999", "http://[::1"])
def test_a_wrong_address_is_exit_code_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--url", url]) == 2
    assert "is not an address" in capsys.readouterr().err


def test_a_wrong_port_and_a_port_of_0_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOWNTICK_HTTP__PORT", "eighty")
    assert main(["health"]) == 2
    assert "http.port" in capsys.readouterr().err
    monkeypatch.setenv("DOWNTICK_HTTP__PORT", "0")
    monkeypatch.setenv("DOWNTICK_WORKER", "w")
    assert main(["health"]) == 1
    assert "http.port is 0" in capsys.readouterr().err


def test_it_loads_nothing_that_is_slow() -> None:
    code = (
        "import sys; from consumer.cli import main; main(['health', '--url', 'http://127.0.0.1:9']);"
        "print({'pydantic', 'numpy', 'redis', 'rich', 'confluent_kafka', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
