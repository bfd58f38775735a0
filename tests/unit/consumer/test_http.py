"""The three addresses, as a probe and as Prometheus see them."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter

from consumer.http import DEAD_SECONDS, HttpServer


@dataclass
class Worker:
    """What the server is told of the engine."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    beat: float = field(default_factory=time.monotonic)
    troubles: tuple[str, ...] = ()
    port: int = 0

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    told = Worker()
    server = HttpServer("127.0.0.1", 0, told.registry, beat=lambda: told.beat, troubles=lambda: told.troubles)
    told.port = server.port
    yield told
    server.close()


def test_metrics_are_prometheus_text(worker: Worker) -> None:
    Counter("downtick_things_total", "Things.", registry=worker.registry).inc(3)
    status, kind, body = worker.ask("/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert "downtick_things_total 3.0\n" in body


def test_a_worker_without_trouble_is_ready(worker: Worker) -> None:
    assert worker.ask("/ready") == (200, "application/json", '{"ok": true, "troubles": []}\n')


def test_a_worker_in_trouble_says_why(worker: Worker) -> None:
    worker.troubles = ("Redis: away", "partition 3 restores its histories, 7 records to go")
    status, _, body = worker.ask("/ready")
    assert status == 503
    assert json.loads(body) == {
        "ok": False,
        "troubles": ["Redis: away", "partition 3 restores its histories, 7 records to go"],
    }
    assert worker.ask("/live")[0] == 200  # trouble is no reason to be restarted


def test_a_worker_lives_while_its_last_round_is_younger_than_a_minute(worker: Worker) -> None:
    worker.beat = time.monotonic() - DEAD_SECONDS + 5
    assert worker.ask("/live") == (200, "application/json", '{"ok": true, "troubles": []}\n')
    worker.beat = time.monotonic() - DEAD_SECONDS - 1
    status, _, body = worker.ask("/live")
    assert status == 503
    assert json.loads(body)["troubles"] == ["the engine's last round was 61 s ago"]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/readyz", "/../ready", ""])
def test_other_paths_are_not_found_and_the_answer_names_ours(worker: Worker, path: str) -> None:
    status, _, body = worker.ask(path)
    assert (status, body) == (404, "/metrics, /live and /ready are here\n")


def test_a_query_changes_nothing(worker: Worker) -> None:
    assert worker.ask("/ready?verbose=1")[0] == 200


@pytest.mark.parametrize(("path", "expected"), [("/ready", 503), ("/live", 200), ("/metrics", 200), ("/x", 404)])
def test_head_has_the_status_and_no_body(worker: Worker, path: str, expected: int) -> None:
    worker.troubles = ("not started",)
    assert (worker.ask(path, "HEAD")[0], worker.ask(path, "HEAD")[2]) == (expected, "")


def test_nothing_can_be_changed_from_here(worker: Worker) -> None:
    assert worker.ask("/ready", "POST")[0] == 501
    assert worker.ask("/ready", "DELETE")[0] == 501


def test_one_connection_serves_many_scrapes(worker: Worker) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=5)
    for path in ("/ready", "/live", "/x", "/metrics", "/ready"):
        connection.request("GET", path)
        connection.getresponse().read()
        assert connection.sock is not None  # kept open
    connection.close()


def test_a_client_that_says_nothing_keeps_nobody_waiting(worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", worker.port)):
        assert worker.ask("/ready")[0] == 200


@pytest.mark.parametrize("host", ["::1", "::"])
def test_it_listens_on_an_ipv6_address(host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = HttpServer(host, 0, CollectorRegistry(), beat=time.monotonic, troubles=lambda: ())
    try:
        connection = http.client.HTTPConnection("::1", server.port, timeout=5)
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.close()


def test_a_port_that_is_taken_is_an_os_error(worker: Worker) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer("127.0.0.1", worker.port, worker.registry, beat=lambda: 0.0, troubles=lambda: ())


def test_a_closed_server_listens_no_more_and_frees_its_port(worker: Worker) -> None:
    server = HttpServer("127.0.0.1", 0, worker.registry, beat=lambda: 0.0, troubles=lambda: ())
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)
    HttpServer("127.0.0.1", server.port, worker.registry, beat=lambda: 0.0, troubles=lambda: ()).close()
