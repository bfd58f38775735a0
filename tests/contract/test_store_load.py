"""Reading a partition back: all of it in chunks, and every way in which it can be damaged is seen."""

import secrets
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import state.store
from state.errors import StoreRefused
from state.layout import record_dtype
from state.store import Outcome, RedisStore, Unavailable
from tests.support.fold import Fold, load_all, meta_at
from tests.support.redis_fixtures import MakeStore

SIZE = record_dtype(1).itemsize


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    depth=st.integers(1, 9),
    keep=st.integers(1, 12),
    batches=st.lists(st.lists(st.sampled_from(["A", "BB", "^GSPC", "x" * 64, "A:b/c=1"]), max_size=25), max_size=6),
)
def test_any_log_in_any_batches_is_read_back(
    make_store: MakeStore, depth: int, keep: int, batches: list[list[str]]
) -> None:
    store = make_store(topic=secrets.token_hex(6))
    fold, before = Fold(depth), None
    for batch in [*batches, ["A"]]:
        delta = fold.batch(*batch)
        then = meta_at(fold.watermark, depth=depth)
        if then != before:
            assert store.write(3, before, then, delta) is Outcome.APPLIED
        before = then
    meta = store.read_meta(3)
    assert meta == before
    fold.assert_loaded(load_all(store, 3, meta, 1, keep), keep)
    store.close()


def test_many_stocks_come_in_several_chunks_and_the_store_is_free_between_them(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state.store, "READ_BYTES", 10 * 8 * SIZE)
    fold = Fold()
    then = meta_at(94)
    assert store.write(0, None, then, fold.batch(*[f"S{number}" for number in range(95)])) is Outcome.APPLIED
    calls = []
    loaded = load_all(store, 0, then, 1, 4, on_chunk=lambda: calls.append(store.read_meta(0)))
    fold.assert_loaded(loaded, 4)
    assert calls == [then] * 3  # 40 + 40 + 15


def patched(ring: bytes, at: int, format_: str, number: int) -> bytes:
    data = bytearray(ring)
    struct.pack_into(format_, data, at, number)
    return bytes(data)


# Ways to change a full ring of 8 records; its newest index, 10, is at slot 1, and the offset is 8 bytes into a record.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "short by a record": lambda ring: ring[:-SIZE],
    "short by a byte": lambda ring: ring[:-1],
    "long": lambda ring: ring + bytes(SIZE),
    "empty": lambda ring: ring[:0],
    "an index of a round later": lambda ring: patched(ring, 5 * SIZE, "<Q", 14),
    "an index of a round before": lambda ring: patched(ring, 1 * SIZE, "<Q", 2),
    "an empty slot": lambda ring: ring[: 3 * SIZE] + bytes(SIZE) + ring[4 * SIZE :],
    "an offset that is too high": lambda ring: patched(ring, 4 * SIZE + 8, "<q", 10**6),
    "an offset twice": lambda ring: ring[: 4 * SIZE + 8] + ring[3 * SIZE + 8 : 3 * SIZE + 16] + ring[4 * SIZE + 16 :],
    "ahead of the watermark": lambda ring: patched(ring, 1 * SIZE + 8, "<q", 10**6),
    "an index past 2**63": lambda ring: patched(ring, 4 * SIZE, "<Q", 2**63 + 5),
}


@pytest.mark.parametrize("how", [*DAMAGE, "missing", "a list"])
def test_a_damaged_ring_is_named_and_the_others_are_read(store: RedisStore, how: str) -> None:
    fold = Fold(depth=8)
    then = meta_at(29)
    assert store.write(0, None, then, fold.batch(*"ABC" * 10)) is Outcome.APPLIED
    ring = store.keys(0).ring("g1", "B")
    if how in {"missing", "a list"}:
        store.ask(0, "DEL", ring)
        if how == "a list":
            store.ask(0, "RPUSH", ring, "x")
    else:
        healthy = store.ask(0, "GET", ring)
        assert DAMAGE[how](healthy) != healthy
        store.ask(0, "SET", ring, DAMAGE[how](healthy))
    loaded = load_all(store, 0, then, 1, 4)
    assert loaded.broken == ["B"]
    assert not loaded.intact
    assert sorted(loaded.stocks) == ["A", "C"]
    assert [int(count) for count in loaded.counts] == [10, 10]
    by_stock = dict(zip(loaded.stocks, loaded.records, strict=True))
    assert by_stock["A"].tobytes() == fold.rings["A"][-4:].tobytes()


@pytest.mark.parametrize("how", ["deleted", "a string", "one member removed"])
def test_a_damaged_set_of_stocks_is_seen_when_it_is_read(store: RedisStore, how: str) -> None:
    fold = Fold()
    then = meta_at(2)
    assert store.write(0, None, then, fold.batch(*"ABC")) is Outcome.APPLIED
    stocks = store.keys(0).stocks("g1")
    store.ask(0, *(("SREM", stocks, "B") if how == "one member removed" else ("DEL", stocks)))
    if how == "a string":
        store.ask(0, "SET", stocks, "x")
    loaded = load_all(store, 0, then, 1, 8)
    assert loaded.stocks_lost
    assert not loaded.intact
    assert loaded.stocks == ([] if how != "one member removed" else loaded.stocks)


def test_a_meta_that_moves_meanwhile_makes_the_whole_read_void(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    fold = Fold()
    assert store.write(0, None, meta_at(2), fold.batch(*"ABC")) is Outcome.APPLIED
    delta = fold.batch("A")

    def someone_writes() -> None:
        assert other.write(0, meta_at(2), meta_at(3), delta) is Outcome.APPLIED

    with pytest.raises(Unavailable, match="moved while"):
        load_all(store, 0, meta_at(2), 1, 8, on_chunk=someone_writes)
    with pytest.raises(Unavailable, match="moved while"):
        load_all(store, 0, meta_at(2), 1, 8)
    fold.assert_loaded(load_all(store, 0, meta_at(3), 1, 8), 8)


def test_a_meta_field_that_is_no_number_names_the_key(store: RedisStore) -> None:
    assert store.write(0, None, meta_at(0), Fold().batch("A")) is Outcome.APPLIED
    store.ask(0, "HSET", store.keys(0).meta, "depth", "lots")
    with pytest.raises(StoreRefused, match=r"\}:meta is not ours: depth is 'lots'"):
        store.read_meta(0)


def test_a_meta_of_a_newer_layout_can_be_told_by_its_layout(store: RedisStore) -> None:
    key = store.keys(0).meta
    store.ask(0, "HSET", key, "generation", "g9", "watermark", 7, "layout", 2, "shape", "round")
    meta = store.read_meta(0)
    assert meta is not None
    assert (meta.layout, meta.watermark) == (2, 7)


def test_resume_is_taken_once(store: RedisStore) -> None:
    assert not store.take_resume(0)
    store.ask(0, "SET", store.keys(0).resume, "1")
    assert not store.take_resume(1)
    assert store.take_resume(0)
    assert not store.take_resume(0)


def test_records_are_little_endian_and_packed() -> None:
    record: Any = np.zeros(1, record_dtype(2))
    record["index"], record["offset"], record["ts"], record["values"] = 1, 2, 3, [[4.0, 5.0]]
    record["forecast"], record["low"], record["high"], record["scale"] = 6, 7, 8, 9
    record["probability"], record["flags"] = 0.5, 3
    assert record.tobytes() == struct.pack("<Qqq2d4dfI", 1, 2, 3, 4.0, 5.0, 6, 7, 8, 9, 0.5, 3)
