"""Whole sets of rings: staged out of sight, made current at once, converted, and deleted in the background."""

import numpy as np
import pytest

import state.convert
from state.convert import convert
from state.errors import Unavailable
from state.layout import Delta
from state.store import Broken, Outcome, RedisStore
from tests.support.fold import Fold, load_all, meta_at
from tests.support.redis_fixtures import MakeStore


def first_generation(store: RedisStore, fold: Fold, *stocks: str) -> None:
    then = meta_at(fold.watermark + len(stocks), depth=fold.depth)
    assert store.write(0, None, then, fold.batch(*stocks)) is Outcome.APPLIED


def key_count(store: RedisStore, generation: str, stocks: str) -> int:
    keys = store.keys(0)
    return int(store.ask(0, "EXISTS", keys.stocks(generation), *[keys.ring(generation, stock) for stock in stocks]))


def test_a_staged_generation_is_out_of_sight_until_one_write_makes_it_current(store: RedisStore) -> None:
    fold, rebuilt = Fold(), Fold(depth=5)
    first_generation(store, fold, *"AABBCC")
    before = meta_at(5)
    for part in ("ABC", "AABB", "C"):
        assert store.stage(0, before, "g2", 5, rebuilt.batch(*part)) is Outcome.APPLIED
        assert store.read_meta(0) == before
        fold.assert_loaded(load_all(store, 0, before, 1, 8), 8)
    then = meta_at(8, generation="g2", depth=5)
    assert store.write(0, before, then, rebuilt.batch("D")) is Outcome.APPLIED
    assert store.read_meta(0) == then
    rebuilt.assert_loaded(load_all(store, 0, then, 1, 5), 5)
    assert store.old_generations(0, "g2") == ["g1"]


def test_the_very_first_generation_can_be_staged_too(store: RedisStore) -> None:
    fold = Fold()
    assert store.stage(0, None, "g1", 8, fold.batch(*"ABC")) is Outcome.APPLIED
    assert store.read_meta(0) is None
    assert store.stage(0, None, "g1", 8, fold.batch(*"CD")) is Outcome.APPLIED
    assert store.write(0, None, meta_at(5), fold.batch("A")) is Outcome.APPLIED
    fold.assert_loaded(load_all(store, 0, meta_at(5), 1, 8), 8)
    assert store.old_generations(0, "another") == []  # it is not listed as one of the others any more


def test_whole_rings_can_be_staged_again_and_again(store: RedisStore) -> None:
    fold, rebuilt = Fold(), Fold()
    first_generation(store, fold, "A")
    rebuilt.batch(*"ABAB", *"A" * 20)
    whole = rebuilt.rewrite("AB")
    for part in (whole, whole, *whole.split(1), whole):
        assert store.stage(0, meta_at(0), "g2", 8, part) is Outcome.APPLIED
    then = meta_at(23, generation="g2")
    for _ in range(2):
        assert store.write(0, meta_at(0), then, Delta.empty(1)) is Outcome.APPLIED
    rebuilt.assert_loaded(load_all(store, 0, then, 1, 8), 8)


def test_a_repeated_append_to_a_staged_generation_is_found_broken_not_doubled(store: RedisStore) -> None:
    rebuilt = Fold()
    delta = rebuilt.batch(*"AB")
    assert store.stage(0, None, "g1", 8, delta) is Outcome.APPLIED
    assert store.stage(0, None, "g1", 8, delta) == Broken([0, 1])


def test_staging_against_another_meta_is_a_conflict(store: RedisStore) -> None:
    first_generation(store, Fold(), "A")
    for expect in (None, meta_at(1), meta_at(0, generation="g0")):
        assert store.stage(0, expect, "g2", 8, Fold().batch("A")) is Outcome.CONFLICT
    assert key_count(store, "g2", "A") == 0
    assert store.old_generations(0, "g1") == []
    with pytest.raises(ValueError, match="current generation cannot be staged"):
        store.stage(0, meta_at(0), "g1", 8, Fold().batch("A"))


def test_a_call_that_was_given_up_and_arrives_late_does_not_overwrite_a_newer_one(store: RedisStore) -> None:
    rebuilt = Fold()
    rebuilt.batch(*"AB")
    early = rebuilt.rewrite("AB")
    store._fence = 4
    assert store.stage(0, None, "g1", 8, early) is Outcome.APPLIED
    assert store.stage(0, None, "g1", 8, rebuilt.batch(*"AA")) is Outcome.APPLIED
    store._fence = 4  # the first call's packets, held up on their way, come now
    assert store.stage(0, None, "g1", 8, early) is Outcome.CONFLICT
    assert store.write(0, None, meta_at(3), Delta.empty(1)) is Outcome.APPLIED
    rebuilt.assert_loaded(load_all(store, 0, meta_at(3), 1, 8), 8)


def test_a_lost_set_of_a_staged_generation_is_noticed(store: RedisStore) -> None:
    rebuilt = Fold()
    assert store.stage(0, None, "g1", 8, rebuilt.batch(*"AB")) is Outcome.APPLIED
    store.ask(0, "DEL", store.keys(0).stocks("g1"))
    assert store.stage(0, None, "g1", 8, rebuilt.batch("A")) == Broken([], stocks_lost=True)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_an_old_generation_is_deleted_in_chunks_and_forgotten(store: RedisStore, limit: int) -> None:
    fold = Fold()
    first_generation(store, fold, *"ABCDEFG")
    then = meta_at(7, generation="g2")
    rebuilt = Fold()
    rebuilt.next_offset = 7
    assert store.write(0, meta_at(6), then, rebuilt.batch("A")) is Outcome.APPLIED
    assert key_count(store, "g1", "ABCDEFG") == 8
    calls = 0
    while not store.unlink_generation(0, "g1", limit):
        calls += 1
    assert calls == -(-7 // limit)
    assert key_count(store, "g1", "ABCDEFG") == 0
    assert store.old_generations(0, "g2") == []
    rebuilt.assert_loaded(load_all(store, 0, then, 1, 8), 8)
    assert store.unlink_generation(0, "g1", limit)
    assert store.old_generations(0, "g2") == []


def test_the_current_generation_is_left_alone(store: RedisStore) -> None:
    fold = Fold()
    first_generation(store, fold, "A", "B")
    assert store.unlink_generation(0, "g1", 1)
    assert store.write(0, meta_at(1), meta_at(2), fold.batch("A")) is Outcome.APPLIED
    fold.assert_loaded(load_all(store, 0, meta_at(2), 1, 8), 8)


def test_who_stages_a_generation_that_another_worker_deletes_meets_a_conflict(make_store: MakeStore) -> None:
    owner, zombie = make_store(), make_store()
    rebuilt = Fold()
    first_generation(owner, Fold(), "A")
    assert owner.stage(0, meta_at(0), "g2", 8, rebuilt.batch(*"ABC")) is Outcome.APPLIED
    assert zombie.old_generations(0, "g1") == ["g2"]
    zombie.unlink_generation(0, "g2", 1)
    assert owner.stage(0, meta_at(0), "g2", 8, rebuilt.batch("D")) is Outcome.CONFLICT
    assert owner.write(0, meta_at(0), meta_at(3, generation="g2"), Delta.empty(1)) is Outcome.CONFLICT
    assert owner.read_meta(0) == meta_at(0)


def test_a_set_of_another_type_does_not_stop_the_deletion(store: RedisStore) -> None:
    first_generation(store, Fold(), "A")
    assert store.write(0, meta_at(0), meta_at(1, generation="g2"), Delta.empty(1)) is Outcome.APPLIED
    stocks = store.keys(0).stocks("g1")
    store.ask(0, "DEL", stocks)
    store.ask(0, "SET", stocks, "x")
    assert store.unlink_generation(0, "g1", 10)
    assert store.ask(0, "EXISTS", stocks) == 0


@pytest.mark.parametrize("depth", [1, 3, 7, 8, 9, 20])
def test_rings_are_converted_to_another_depth(store: RedisStore, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.convert, "STOCKS", 2)
    fold = Fold(depth=8)
    first_generation(store, fold, *"A" * 11, *"B" * 8, *"CCC", "D", *"A" * 4)
    chunks = []
    then = convert(store, 0, meta_at(26), "g2", depth, on_chunk=lambda: chunks.append(1))
    assert then == meta_at(26, generation="g2", depth=depth)
    assert store.read_meta(0) == then
    assert chunks
    for stock, ring in fold.rings.items():
        kept = ring[-8:][-depth:].copy()
        kept["index"] = np.arange(len(kept)) + 1
        fold.rings[stock] = kept
    fold.depth = depth
    fold.assert_loaded(load_all(store, 0, then, 1, 20), 20)
    assert store.write(0, then, meta_at(29, generation="g2", depth=depth), fold.batch(*"AAD")) is Outcome.APPLIED
    fold.assert_loaded(load_all(store, 0, meta_at(29, generation="g2", depth=depth), 1, 20), 20)
    assert store.old_generations(0, "g2") == ["g1"]


def test_broken_rings_are_not_converted_and_the_old_meta_stays(store: RedisStore) -> None:
    first_generation(store, Fold(), *"ABC")
    store.ask(0, "DEL", store.keys(0).ring("g1", "B"))
    assert convert(store, 0, meta_at(2), "g2", 16) == meta_at(2)
    assert store.read_meta(0) == meta_at(2)
    assert load_all(store, 0, meta_at(2), 1, 8).broken == ["B"]


def test_a_conversion_that_someone_else_overtakes_changes_nothing(make_store: MakeStore) -> None:
    store, other = make_store(), make_store()
    fold = Fold()
    first_generation(store, fold, *"ABC")
    delta = fold.batch("A")

    def someone_writes() -> None:
        assert other.write(0, meta_at(2), meta_at(3), delta) is Outcome.APPLIED

    with pytest.raises(Unavailable, match="moved while"):
        convert(store, 0, meta_at(2), "g2", 16, on_chunk=someone_writes)
    assert store.read_meta(0) == meta_at(3)
    fold.assert_loaded(load_all(store, 0, meta_at(3), 1, 8), 8)


def test_an_older_layout_goes_through_its_upgrades(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = Fold()
    first_generation(store, fold, *"AAB")
    monkeypatch.setattr(state.convert, "LAYOUT", 2)

    def tick(records: np.ndarray) -> np.ndarray:
        records["ts"] += 1
        return records

    monkeypatch.setitem(state.convert._UPGRADES, 1, tick)
    then = convert(store, 0, meta_at(2), "g2", 8)
    assert then.layout == 2
    for ring in fold.rings.values():
        ring["ts"] += 1
    fold.assert_loaded(load_all(store, 0, then, 1, 8), 8)
