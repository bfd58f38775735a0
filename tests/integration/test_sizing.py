"""Bytes per stock, as docs/operations.md has them for depth 128: measured in memory and on a real Redis."""

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from state.history import History
from state.layout import Delta, Meta, record_dtype
from state.store import Outcome, RedisStore
from tests.support import guide
from tests.support.processes import wait_until
from tests.support.redis_servers import RedisServer
from tests.support.reference_model import KerasModel

DEPTH, STOCKS = 128, 5_000
CALL = 50  # stocks of a call: Redis 8 keeps room for the largest it has met
SIZING = guide.section("Sizing")


def told(row: str) -> int:
    """The number of bytes in the row that begins so."""
    found = re.search(rf"^\| {row}[^|]*\| ([\d,]+) \|$", SIZING, re.MULTILINE)
    assert found, row
    return int(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path_factory.mktemp("sizing"))
    yield redis.start()
    redis.close()


def used(server: RedisServer) -> int:
    """Bytes in use once nobody else is connected: a client's buffers count too."""
    wait_until(lambda: server.call("INFO", "clients")["connected_clients"] == 1, within=10, what="clients gone")
    return int(server.call("INFO", "memory")["used_memory"])


def fill(server: RedisServer, stocks: int, step: int) -> str:
    """Full rings of so many stocks, `step` updates at a time, in an empty Redis; one ring's key."""
    server.call("FLUSHALL", "SYNC")  # without it Redis 8 empties itself in the background
    store = RedisStore(server.url, cluster=False, prefix="downtick", group="downtick", topic="prices")
    names = [f"STOCK{number:05d}" for number in range(stocks)]
    before: Meta | None = None
    for first in range(0, DEPTH, step):
        count = min(step, DEPTH - first)
        for some in (names[at : at + CALL] for at in range(0, stocks, CALL)):
            records = np.zeros((len(some), count), record_dtype(1))
            records["index"] = records["offset"] = np.arange(first + 1, first + count + 1)
            watermark = before.watermark + 1 if before else DEPTH
            then = Meta("0123456789abcdef", watermark, "cluster", "topic", 1, DEPTH, "model", "")
            new = np.full(len(some), first == 0)
            delta = Delta(some, np.full(len(some), count), records.reshape(-1), new, np.zeros(len(some), np.bool_))
            assert store.write(0, before, then, delta) is Outcome.APPLIED
            before = then
    key = store.keys(0).ring("0123456789abcdef", names[7])
    store.close()
    assert server.call("STRLEN", key) == DEPTH * 72
    return key


def test_a_ring_that_is_written_whole_takes_what_the_guide_says_and_again_after_a_restart(server: RedisServer) -> None:
    fill(server, 10, DEPTH)  # what Redis keeps for itself after its first script is no stock's
    empty = used(server)
    fill(server, STOCKS, DEPTH)
    # Its table of keys is of a power of two: some 10 bytes a stock more or less.
    assert (used(server) - empty) / STOCKS == pytest.approx(told("written whole"), rel=0.01)
    fill(server, STOCKS, 4)
    server.snapshot()
    server.restart()
    assert (used(server) - empty) / STOCKS == pytest.approx(told("written whole"), rel=0.03)


def test_a_ring_that_grew_takes_more_and_never_more_than_the_guide_says(server: RedisServer) -> None:
    fill(server, 10, DEPTH)
    empty = used(server)
    fill(server, STOCKS, 4)
    assert (used(server) - empty) / STOCKS == pytest.approx(told("grown four updates at a time"), rel=0.03)
    names = told("written whole") - server.call("MEMORY", "USAGE", fill(server, 10, DEPTH))
    largest = max(server.call("MEMORY", "USAGE", fill(server, 10, step)) for step in range(1, DEPTH))
    assert largest + names == pytest.approx(told("at most, however it grew"), rel=0.02)


def test_a_stock_takes_what_the_guide_says_in_memory(model: KerasModel) -> None:
    formula = "reach × (64 + 16 × channels) + 9"
    assert formula in SIZING
    reach, channels = 40, 1
    size = int(eval(formula.replace("×", "*"), {"reach": reach, "channels": channels}))  # noqa: S307  # our own page
    assert f"**{size:,} bytes**" in SIZING
    assert model.reach <= reach
    history = History(reach, channels, DEPTH)
    history.load(["ANY"], np.array([1]), np.zeros((1, reach), record_dtype(channels)))
    arrays = [value for value in vars(history).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) == size * len(arrays[0])

    lower, upper, peak = (
        float(number) * 1000 for number in re.findall(r"(\d\.\d) to (\d\.\d) KB.*plan (\d) KB", SIZING)[0]
    )
    for stocks in (100_000, 115_000, 116_000):  # rows are reserved at 115,323
        tracemalloc.start()
        grown = History(reach, channels, DEPTH)
        for first in range(0, stocks, 1_000):
            some = [f"S{number:06d}" for number in range(first, min(first + 1_000, stocks))]
            grown.load(some, np.full(len(some), reach), np.ones((len(some), reach), record_dtype(channels)))
        current, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert lower <= current / stocks <= upper, stocks
        assert most / stocks <= peak, stocks


def test_the_bundle_that_ships_reaches_as_far_as_the_guide_says() -> None:
    from consumer.models import Histories  # noqa: PLC0415  # TensorFlow, for this test alone
    from model.predictor import Predictor  # noqa: PLC0415

    bundle = Path(guide.__file__).parents[2] / "model" / "bundles" / "default"
    assert Histories.of(Predictor.load(bundle), None, DEPTH).reach == 40
