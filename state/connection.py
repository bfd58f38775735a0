"""One connection to one Redis server: packed commands out, replies in, and every failure under one of our two names.

redis-py makes the connection (TLS, passwords, protocol); its clients are left aside, because they repeat calls, follow
redirections and sleep on their own: here the engine decides when a call is made again. And its commands have thousands
of keys, which are packed in bulk."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from state.errors import StoreRefused, Unavailable

# Codes of error replies that pass, and what to look at. A script's error has the code somewhere inside its message.
AWAY = {
    "LOADING": "it is loading its data set; wait",
    "READONLY": "it is a replica; a failover is going on, or redis.url names the wrong server",
    "OOM": "its memory is full; raise maxmemory, or lower history.depth or the number of stocks",
    "MISCONF": "it cannot save to disk; look at its log and its disk",
    "NOREPLICAS": "too few replicas are in sync for min-replicas-to-write; look at them",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "CLUSTERDOWN": "the cluster does not serve this slot; look at CLUSTER INFO",
    "TRYAGAIN": "the slot is being moved to another node",
    "SCRIPT KILL": "someone killed our script",
    "BUSY": "a script of someone else is running for too long",
    "IOERR": "a node of the cluster could not reach another one",
}
_AWAY_CODE = re.compile(rf"\b({'|'.join(AWAY)})\b")

Bytes = bytes | bytearray | memoryview
SEND_BYTES = (
    1 << 20
)  # per send: the socket's timeout is for each of these, so that a slow link does not fail a large call


def pack_arguments(arguments: Iterable[str | bytes | int]) -> bytes:
    """Arguments of a command as the protocol writes them."""
    parts = []
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def pack(*arguments: str | bytes | int, more: int = 0) -> bytes:
    """One command as the protocol writes it; `more` arguments are to follow from elsewhere."""
    return b"*%d\r\n" % (len(arguments) + more) + pack_arguments(arguments)


def explain(error: RedisError, server: str, unknown: Unavailable | None = None) -> Unavailable | StoreRefused:
    """The exception for an error reply, by its code. Its text has no secret: a server does not repeat passwords."""
    text = f"{error.status_code or ''} {error}".strip()
    code = _AWAY_CODE.search(text)
    if code:
        return Unavailable(f"Redis at {server}: {AWAY[code[1]]} ({text})")
    return unknown or StoreRefused(f"Redis at {server} refused a call: {text}")


def checked(reply: Any, server: str) -> Any:
    """The reply, unless it is an error. Raises: Unavailable, StoreRefused."""
    if isinstance(reply, ResponseError):
        raise explain(reply, server) from reply
    return reply


@contextmanager
def _our_errors(server: str) -> Iterator[None]:
    try:
        yield
    except (AuthenticationError, AuthorizationError) as error:
        raise StoreRefused(f"Redis at {server} does not let us in: {error}; look at redis.url") from error
    except RedisTimeoutError as error:
        raise Unavailable(f"Redis at {server} is too slow: {error}") from error
    except ResponseError as error:  # of the handshake: no permission, no such database
        raise explain(error, server) from error
    except RedisConnectionError as error:  # LOADING is one of these
        raise explain(error, server, Unavailable(f"Redis at {server} is away: {error}")) from error
    except RedisError as error:
        raise StoreRefused(f"Redis at {server} does not speak its protocol: {error}") from error


class Server:
    """One Redis server, connected on first use and again after any failure. Not thread-safe; blocks at most `timeout`
    seconds per step of a connect, send or read."""

    def __init__(self, options: dict[str, Any]) -> None:
        kind = options.get("connection_class", Connection)
        arguments = {name: value for name, value in options.items() if name != "connection_class"}
        try:
            self._connection: Any = kind(**arguments)
        except TypeError as error:
            raise StoreRefused(f"redis.url has an option that redis-py does not know: {error}") from None
        self.name = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    def call(self, commands: Sequence[Iterable[Bytes]]) -> list[Any]:
        """The replies to packed commands, sent in one go; an error reply stands in its place as a ResponseError.

        Raises: Unavailable if a reply did not come, whatever the server has done; StoreRefused for credentials."""
        connection = self._connection
        replies: list[Any] = []
        try:
            with _our_errors(self.name):
                packed = memoryview(b"".join([piece for command in commands for piece in command]))
                for at in range(0, len(packed), SEND_BYTES):
                    connection.send_packed_command([packed[at : at + SEND_BYTES]], check_health=False)
                for _ in commands:
                    try:
                        replies.append(connection.read_response(disable_decoding=True))
                    except ResponseError as error:
                        replies.append(error)
        finally:
            if len(replies) < len(commands):  # those on their way would be taken for the next call's
                connection.disconnect()
        return replies

    def close(self) -> None:
        """Ends the connection; the next call opens one again."""
        self._connection.disconnect()


def connection_options(url: str, timeout: float) -> dict[str, Any]:
    """redis-py's arguments for a connection to `url` that repeats nothing and waits `timeout` seconds for each step.

    Raises: StoreRefused if redis-py cannot read the URL; the message does not repeat it: it may hold a password."""
    read: Any = parse_url  # has no types
    try:
        options: dict[str, Any] = dict(read(url))
    except ValueError as error:
        raise StoreRefused(
            f"redis.url is not a Redis URL ({type(error).__name__}); write redis://host:6379/0"
        ) from None
    return options | {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_read_size": 1 << 18,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "health_check_interval": 0,
        "client_name": "downtick",
        "driver_info": None,  # no CLIENT SETINFO: a Redis before 7.2 answers it with an error
        "protocol": 2,
    }
