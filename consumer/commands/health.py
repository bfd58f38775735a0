"""`downtick health`: the exit code of a container probe. It starts in a tenth of a second, since probes run often."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from consumer.arguments import positive
from consumer.cli_errors import CommandError

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Ask a worker whether it is ready (it has joined its group, all its partitions are seated, Kafka, Redis and the model
are fine), or with --live whether its engine still moves. The exit code is 0 for yes and 1 for no or no answer.

The address is the one that the service's own settings name (http.host, http.port); --url names another.

examples:
  downtick health                            for a readiness probe
  downtick health --live                     for a liveness probe
  downtick health --url http://10.0.0.7:8000
  HEALTHCHECK CMD ["downtick", "health"]     in a Dockerfile"""

# No SETTINGS: pydantic alone takes three times as long as everything else here.
_HOST, _PORT = "127.0.0.1", 8000  # the defaults of consumer/settings.py; a test compares them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is asked, and where."""
    parser.add_argument("--live", action="store_true", help="ask whether it is alive instead of whether it is ready")
    parser.add_argument("--url", metavar="URL", help="address of the worker, as http://host:port")
    parser.add_argument("--timeout", type=positive, metavar="S", default=2.0, help="seconds to wait (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Ask, and say the answer in one line."""
    host, port = _from_url(args.url) if args.url else _from_settings()
    path = "/live" if args.live else "/ready"
    shown = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    connection = http.client.HTTPConnection(host, port, timeout=args.timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or error
        raise CommandError(f"{shown}: {reason}", hint="is the service running, and is this its http.port?") from error
    finally:
        connection.close()
    print(f"{shown}: {_words(response.status, body, 'alive' if args.live else 'ready')}")
    return 0 if response.status == 200 else 1


def _words(status: int, body: str, question: str) -> str:
    """The answer in one line: yes, or why not."""
    try:
        text = question if status == 200 else f"not {question}: {'; '.join(json.loads(body)['troubles'])}"
    except (ValueError, KeyError, TypeError, RecursionError):  # whatever listens there, it is not downtick
        text = f"{status} {body}".strip()
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _from_url(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme != "http" or not host:
        raise CommandError(f"{url!r} is not an address", hint="as in --url http://127.0.0.1:8000", code=2)
    return host, port or 80


def _from_settings() -> tuple[str, int]:
    """Where this machine's service listens. The environment alone is read here; files are left to the settings."""
    names = ("DOWNTICK_HTTP__HOST", "DOWNTICK_HTTP__PORT")
    host, port = os.environ.get(names[0], _HOST), os.environ.get(names[1], str(_PORT))
    in_files = Path(".env").exists() or Path("downtick.toml").exists() or any(f"{n}_FILE" in os.environ for n in names)
    if in_files or not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        from consumer.settings_sources import SettingsError, load_settings  # noqa: PLC0415 - as above

        try:
            settings = load_settings()
        except SettingsError as error:
            raise CommandError(error.lines[0], hint="\n  ".join(error.lines[1:]), code=2) from error
        host, port = settings.http.host, str(settings.http.port)
    if int(port) == 0:
        raise CommandError(
            "http.port is 0, so the service listens on a port of its own choice", hint="name it with --url"
        )
    # What listens on every address is asked on the loopback one.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104 - compared, not bound
