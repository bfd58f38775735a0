"""HTTP: `/metrics`, `/live` and `/ready`, for Prometheus and for probes. Reads only; never waits for the engine."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

LATE_SECONDS = 30.0  # without a sign of life: not ready
DEAD_SECONDS = 60.0  # the same: not alive
IDLE_SECONDS = 10.0  # a client that sends nothing is dropped


def not_ready(beat: Callable[[], float], troubles: Callable[[], tuple[str, ...]]) -> list[str]:
    """Why the worker is not ready: what it says itself, and that it says nothing any more. Arguments as below."""
    silent = time.monotonic() - beat()
    return [*troubles(), *([f"the engine's last round was {silent:.0f} s ago"] if silent > LATE_SECONDS else [])]


class HttpServer:
    """Serves from a thread of its own, from construction until `close`.

    Args:
        host, port: to listen on; port 0 takes a free one, told by `port`.
        beat: time.monotonic() of the engine's last round.
        troubles: why the worker is not ready; empty when it is.

    Raises: OSError if the address cannot be had."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        beat: Callable[[], float],
        troubles: Callable[[], tuple[str, ...]],
    ) -> None:
        def answer(path: str) -> tuple[int, str, bytes]:
            if path == "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
            if path == "/live":
                silent = time.monotonic() - beat()
                return _state(silent < DEAD_SECONDS, [f"the engine's last round was {silent:.0f} s ago"])
            if path == "/ready":
                found = not_ready(beat, troubles)
                return _state(not found, found)
            return 404, "text/plain; charset=utf-8", b"/metrics, /live and /ready are here\n"

        class Handler(BaseHTTPRequestHandler):
            timeout = IDLE_SECONDS
            protocol_version = "HTTP/1.1"
            server_version, sys_version = "downtick", ""

            def do_GET(self) -> None:  # the library's name
                status, content_type, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815  # the library's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's signature
                logger.debug(format, *args)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET  # the library takes IPv4 for all

        self._server = Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _state(good: bool, troubles: list[str]) -> tuple[int, str, bytes]:  # noqa: FBT001  # the one thing it is about
    body = {"ok": good, "troubles": [] if good else troubles}
    return 200 if good else 503, "application/json", json.dumps(body).encode() + b"\n"
