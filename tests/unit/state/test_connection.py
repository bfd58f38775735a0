from typing import Any

import pytest
from redis.exceptions import ResponseError

from state.connection import AWAY, connection_options, explain, pack, pack_arguments
from state.errors import StoreRefused, Unavailable
from state.store import why_unfit


def test_a_command_is_packed_as_the_protocol_asks() -> None:
    assert pack("SET", b"\x00\r\n", 42) == b"*3\r\n$3\r\nSET\r\n$3\r\n\x00\r\n\r\n$2\r\n42\r\n"
    assert pack("SET", "ä", more=1) + pack_arguments([""]) == b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$0\r\n\r\n"


@pytest.mark.parametrize("code", AWAY)
def test_an_error_that_passes_is_unavailable_wherever_its_code_stands(code: str) -> None:
    direct = ResponseError(f"{code} whatever the server says")
    # Redis 6.2 wraps what a script's command was answered.
    wrapped = ResponseError(
        f"ERR Error running script (call to f_0a1b): @user_script:88: @user_script: 88: -{code} said it"
    )
    for error in (direct, wrapped):
        explained = explain(error, "redis:6379")
        assert isinstance(explained, Unavailable)
        assert "redis:6379" in str(explained)
        assert AWAY[code] in str(explained)


@pytest.mark.parametrize(
    "text", ["ERR unknown command 'GETDEL'", "CROSSSLOT Keys in request", "NOPERM this user", "LOADINGS"]
)
def test_an_error_that_stays_is_refused(text: str) -> None:
    assert isinstance(explain(ResponseError(text), "redis:6379"), StoreRefused)


@pytest.mark.parametrize("query", ["", "?retry_on_timeout=yes&socket_timeout=60&health_check_interval=5&protocol=3"])
def test_nothing_in_a_url_makes_a_connection_repeat_or_wait_longer(query: str) -> None:
    options: dict[str, Any] = connection_options(f"rediss://user:word@host:7000/2{query}", 1.5)
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (1.5, 1.5)
    assert options["retry"].get_retries() == 0
    assert (options["retry_on_timeout"], options["retry_on_error"], options["health_check_interval"]) == (False, [], 0)
    assert (options["host"], options["port"], options["db"], options["password"]) == ("host", 7000, 2, "word")
    assert options["connection_class"].__name__ == "SSLConnection"


FIT = {"redis_version": "7.0.15", "cluster_enabled": "0", "maxmemory_policy": "noeviction"}


def test_a_fit_server_has_nothing_against_it() -> None:
    assert why_unfit(FIT, cluster=False) is None
    assert why_unfit(FIT | {"cluster_enabled": "1"}, cluster=True) is None
    assert why_unfit({"redis_version": "6.2.0"}, cluster=False) is None  # a managed one that hides its configuration
    assert why_unfit(FIT | {"redis_version": "10.0.1"}, cluster=False) is None


@pytest.mark.parametrize(
    ("facts", "cluster", "why"),
    [
        ({"redis_version": "6.0.16"}, False, "is version 6.0.16; downtick needs 6.2 or newer"),
        ({"redis_version": "5.9.9"}, False, "is version 5.9.9"),
        ({"cluster_enabled": "1"}, False, "is a cluster, but redis.cluster is false"),
        ({}, True, "is not a cluster, but redis.cluster is true"),
        ({"maxmemory_policy": "volatile-ttl"}, False, "(volatile-ttl) to noeviction"),
    ],
)
def test_an_unfit_server_is_told_why(facts: dict[str, str], cluster: bool, why: str) -> None:  # noqa: FBT001  # a parameter of the case
    assert why in (why_unfit(FIT | facts, cluster=cluster) or "")
