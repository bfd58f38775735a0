"""One scripted call: compare and set, whole or not at all, on a single Redis and on a cluster."""

from dataclasses import replace

import numpy as np
import pytest

from state.connection import pack
from state.layout import Delta, record_dtype
from state.store import Broken, Outcome, RedisStore, Write
from tests.support.fold import Fold, load_all, meta_at
from tests.support.redis_fixtures import MakeStore


def load_matches(store: RedisStore, fold: Fold, *, generation: str = "g1", partition: int = 0) -> None:
    meta = store.read_meta(partition)
    assert meta is not None
    assert (meta.generation, meta.watermark) == (generation, fold.watermark)
    for keep in (1, 5, fold.depth, fold.depth + 3):
        fold.assert_loaded(load_all(store, partition, meta, fold.channels, keep), keep)


def test_a_partition_nobody_has_written_has_no_meta(store: RedisStore) -> None:
    assert store.read_meta(0) is None
    assert store.old_generations(0, "g1") == []


def test_what_is_written_batch_by_batch_is_read_back_to_the_last_bit(store: RedisStore) -> None:
    fold, before = Fold(), None
    for batch in ("ABA", "C", "AAAAAAA", "BCBC", "A" * 30, "CAB"):
        delta = fold.batch(*batch)
        then = meta_at(fold.watermark)
        assert store.write(0, before, then, delta) is Outcome.APPLIED
        assert store.read_meta(0) == then
        load_matches(store, fold)
        before = then


@pytest.mark.parametrize("had", [0, 1, 7, 8, 9, 16])
@pytest.mark.parametrize("run", [1, 2, 7, 8, 9, 16, 17, 40])
def test_a_run_of_any_length_on_a_ring_of_any_length_keeps_the_newest_eight(
    store: RedisStore, had: int, run: int
) -> None:
    fold, before = Fold(depth=8), None
    if had:
        delta, before = fold.batch(*["A"] * had, "B"), meta_at(fold.watermark)
        assert store.write(0, None, before, delta) is Outcome.APPLIED
    delta = fold.batch(*["A"] * run)
    assert store.write(0, before, meta_at(fold.watermark), delta) is Outcome.APPLIED
    load_matches(store, fold)


def test_partitions_written_in_one_call_each_get_their_own_answer(store: RedisStore) -> None:
    folds = [Fold() for _ in range(6)]
    first = [Write(n, None, meta_at(2), fold.batch("A", "B", "A")) for n, fold in enumerate(folds)]
    assert store.write_all(first) == [Outcome.APPLIED] * 6
    for n, fold in enumerate(folds):
        load_matches(store, fold, partition=n)

    store.ask(1, "DEL", store.keys(1).ring("g1", "B"))  # a ring is lost
    second = [Write(n, meta_at(2), meta_at(4), fold.batch("B", "C")) for n, fold in enumerate(folds)]
    second[4] = second[4]._replace(expect=meta_at(1))  # somebody else was there
    expected = [Outcome.APPLIED, Broken([0]), Outcome.APPLIED, Outcome.APPLIED, Outcome.CONFLICT, Outcome.APPLIED]
    assert store.write_all(second) == expected
    assert store.write_all(second) == expected  # its own results are found again
    for n in (0, 2, 3, 5):
        load_matches(store, folds[n], partition=n)
    assert store.read_meta(1) == store.read_meta(4) == meta_at(2)  # nothing was written there


def test_servers_that_have_lost_the_script_are_given_it_again(store: RedisStore) -> None:
    for server in store.servers.primaries():
        assert server.call([[pack("SCRIPT", "FLUSH")]]) == [b"OK"]
    folds = [Fold() for _ in range(6)]
    writes = [Write(n, None, meta_at(2), fold.batch("A", "B", "A")) for n, fold in enumerate(folds)]
    assert store.write_all(writes) == [Outcome.APPLIED] * 6
    for n, fold in enumerate(folds):
        load_matches(store, fold, partition=n)


def test_no_partitions_are_written_in_no_call(store: RedisStore) -> None:
    assert store.write_all([]) == []


def test_extra_fields_widen_the_record(store: RedisStore) -> None:
    fold = Fold(channels=3)
    delta = fold.batch("A", "B", "A")
    then = meta_at(2, fields="volume,spread")
    assert store.write(0, None, then, delta) is Outcome.APPLIED
    load_matches(store, fold)
    with pytest.raises(ValueError, match="3 channels, not 1"):
        load_all(store, 0, then, 1, 8)


def test_an_empty_delta_moves_the_watermark_alone(store: RedisStore) -> None:
    assert store.write(0, None, meta_at(-1), Delta.empty(1)) is Outcome.APPLIED
    assert store.write(0, meta_at(-1), meta_at(41), Delta.empty(1)) is Outcome.APPLIED
    assert store.read_meta(0) == meta_at(41)
    loaded = load_all(store, 0, meta_at(41), 1, 8)
    assert (loaded.stocks, loaded.intact, loaded.records.shape) == ([], True, (0, 8))


def test_a_repeated_call_whose_first_one_had_landed_changes_nothing_and_says_applied(store: RedisStore) -> None:
    fold = Fold()
    delta = fold.batch("A", "B", "A")
    for _ in range(3):
        assert store.write(0, None, meta_at(2), delta) is Outcome.APPLIED
    load_matches(store, fold)
    delta = fold.batch("A", "C")
    for _ in range(3):
        assert store.write(0, meta_at(2), meta_at(4), delta) is Outcome.APPLIED
    load_matches(store, fold)


@pytest.mark.parametrize(
    "expect",
    [None, meta_at(1), meta_at(3), meta_at(2, generation="g0"), meta_at(22)],
    ids=["no meta", "behind", "ahead", "other generation", "a prefix of the text"],
)
def test_any_other_meta_than_the_expected_one_is_a_conflict_and_nothing_is_written(
    store: RedisStore, expect: object
) -> None:
    fold, other = Fold(), Fold()
    assert store.write(0, None, meta_at(2), fold.batch("A", "B", "A")) is Outcome.APPLIED
    other.batch("A", "B", "A")
    delta = other.batch("A", "D")
    assert store.write(0, expect, meta_at(99), delta) is Outcome.CONFLICT  # type: ignore[arg-type]  # by its name above
    load_matches(store, fold)


def test_a_meta_that_is_gone_is_a_conflict_for_who_knew_one(store: RedisStore) -> None:
    fold = Fold()
    assert store.write(0, None, meta_at(0), fold.batch("A")) is Outcome.APPLIED
    store.ask(0, "DEL", store.keys(0).meta)
    assert store.write(0, meta_at(0), meta_at(1), fold.batch("A")) is Outcome.CONFLICT
    assert store.read_meta(0) is None


def test_of_two_workers_with_one_partition_only_one_writes(make_store: MakeStore) -> None:
    one, two = make_store(), make_store()
    fold, slower = Fold(), Fold()
    delta = fold.batch("A", "B")
    slower.batch("A", "B")
    assert one.write(0, None, meta_at(1), delta) is Outcome.APPLIED
    behind = slower.batch("A")
    assert one.write(0, meta_at(1), meta_at(3), fold.batch("B", "B")) is Outcome.APPLIED
    assert two.write(0, meta_at(1), meta_at(2), behind) is Outcome.CONFLICT
    load_matches(two, fold)


def test_watermarks_beyond_the_whole_numbers_of_a_double_are_told_apart(store: RedisStore) -> None:
    far = 2**53
    assert store.write(0, None, meta_at(far), Delta.empty(1)) is Outcome.APPLIED
    assert store.write(0, meta_at(far + 1), meta_at(far + 2), Delta.empty(1)) is Outcome.CONFLICT
    assert store.write(0, meta_at(far), meta_at(far + 1), Delta.empty(1)) is Outcome.APPLIED
    assert store.read_meta(0) == meta_at(far + 1)


def break_ring(store: RedisStore, stock: str, how: str) -> None:
    ring = store.keys(0).ring("g1", stock)
    size = record_dtype(1).itemsize
    if how == "deleted":
        store.ask(0, "DEL", ring)
    elif how == "a list":
        store.ask(0, "DEL", ring)
        store.ask(0, "RPUSH", ring, "x")
    elif how == "short":
        store.ask(0, "SET", ring, store.ask(0, "GETRANGE", ring, 0, size - 1))
    elif how == "long":
        store.ask(0, "APPEND", ring, "x")


@pytest.mark.parametrize("how", ["deleted", "a list", "short", "long"])
def test_broken_rings_are_named_nothing_is_written_and_a_rewrite_heals_them(store: RedisStore, how: str) -> None:
    fold = Fold()
    assert store.write(0, None, meta_at(9), fold.batch(*"ABCDABCDAB")) is Outcome.APPLIED
    for stock in "BD":
        break_ring(store, stock, how)
    keys = store.keys(0)
    untouched = store.ask(0, "MGET", keys.ring("g1", "A"), keys.ring("g1", "C"))

    delta = fold.batch(*"ABCDE")
    assert store.write(0, meta_at(9), meta_at(14), delta) == Broken([1, 3])
    assert store.read_meta(0) == meta_at(9)
    assert store.ask(0, "MGET", keys.ring("g1", "A"), keys.ring("g1", "C")) == untouched
    assert store.ask(0, "EXISTS", keys.ring("g1", "E")) == 0

    rest = Delta(
        ["A", "C", "E"],
        np.array([1, 1, 1]),
        delta.records[[0, 2, 4]],
        np.array([False, False, True]),
        np.zeros(3, np.bool_),
    )
    healed = fold.rewrite("BD")
    both = Delta(
        rest.stocks + healed.stocks,
        np.concatenate((rest.counts, healed.counts)),
        np.concatenate((rest.records, healed.records)),
        np.concatenate((rest.new, healed.new)),
        np.concatenate((rest.rewrite, healed.rewrite)),
    )
    assert store.write(0, meta_at(9), meta_at(14), both) is Outcome.APPLIED
    load_matches(store, fold)
    assert store.write(0, meta_at(14), meta_at(18), fold.batch(*"BBDD")) is Outcome.APPLIED
    load_matches(store, fold)


def test_a_new_stock_whose_ring_is_there_already_is_broken(store: RedisStore) -> None:
    store.ask(0, "SET", store.keys(0).ring("g1", "A"), "left over")
    fold = Fold()
    assert store.write(0, None, meta_at(1), fold.batch("B", "A")) == Broken([1])
    assert store.write(0, None, meta_at(1), fold.rewrite("BA")) is Outcome.APPLIED
    load_matches(store, fold)


def test_a_ring_can_be_repaired_where_the_watermark_stands(store: RedisStore) -> None:
    fold = Fold()
    assert store.write(0, None, meta_at(9), fold.batch(*"ABCDABCDAB")) is Outcome.APPLIED
    break_ring(store, "C", "deleted")
    repair = fold.rewrite("C")
    for _ in range(2):
        assert store.write(0, meta_at(9), meta_at(9), repair) is Outcome.APPLIED
    load_matches(store, fold)
    with pytest.raises(ValueError, match="may only rewrite"):
        store.write(0, meta_at(9), meta_at(9), fold.batch("A"))


def test_a_run_as_long_as_the_ring_replaces_even_a_broken_one(store: RedisStore) -> None:
    fold = Fold(depth=8)
    assert store.write(0, None, meta_at(3), fold.batch(*"ABAB")) is Outcome.APPLIED
    break_ring(store, "A", "a list")
    assert store.write(0, meta_at(3), meta_at(14), fold.batch(*"A" * 11)) is Outcome.APPLIED
    load_matches(store, fold)


@pytest.mark.parametrize("how", ["deleted", "a string", "one member removed", "one member added"])
def test_a_damaged_set_of_stocks_is_noticed_and_nothing_is_written(store: RedisStore, how: str) -> None:
    fold = Fold()
    assert store.write(0, None, meta_at(2), fold.batch(*"ABC")) is Outcome.APPLIED
    stocks = store.keys(0).stocks("g1")
    if how == "one member removed":
        store.ask(0, "SREM", stocks, "C")
    elif how == "one member added":
        store.ask(0, "SADD", stocks, "Z")
    else:
        store.ask(0, "DEL", stocks)
    if how == "a string":
        store.ask(0, "SET", stocks, "x")
    ring = store.ask(0, "GET", store.keys(0).ring("g1", "A"))
    delta = fold.batch(*"AD")
    assert store.write(0, meta_at(2), meta_at(4), delta) == Broken([], stocks_lost=True)
    assert store.read_meta(0) == meta_at(2)
    assert store.ask(0, "GET", store.keys(0).ring("g1", "A")) == ring
    assert load_all(store, 0, meta_at(2), 1, 8).stocks_lost


def test_a_meta_of_another_type_is_no_meta(store: RedisStore) -> None:
    fold = Fold()
    assert store.write(0, None, meta_at(0), fold.batch("A")) is Outcome.APPLIED
    key = store.keys(0).meta
    store.ask(0, "DEL", key)
    store.ask(0, "RPUSH", key, "x")
    assert store.read_meta(0) is None
    assert store.write(0, meta_at(0), meta_at(1), fold.batch("A")) is Outcome.CONFLICT
    again = Fold()
    then = meta_at(0, generation="g2")
    assert store.write(0, None, then, again.batch("A")) is Outcome.APPLIED
    assert store.read_meta(0) == then
    load_matches(store, again, generation="g2")


@pytest.mark.parametrize("field", ["generation", "watermark"])
def test_a_meta_without_generation_or_watermark_is_no_meta(store: RedisStore, field: str) -> None:
    fold = Fold()
    assert store.write(0, None, meta_at(0), fold.batch("A")) is Outcome.APPLIED
    store.ask(0, "HDEL", store.keys(0).meta, field)
    assert store.read_meta(0) is None
    assert store.write(0, meta_at(0), meta_at(1), fold.batch("A")) is Outcome.CONFLICT
    assert store.write(0, None, meta_at(0, generation="g2"), Fold().batch("A")) is Outcome.APPLIED


def test_ten_thousand_stocks_go_in_one_call(store: RedisStore) -> None:
    fold = Fold(depth=2)
    names = [f"S{number}" for number in range(10_000)]
    then = meta_at(9_999, depth=2)
    assert store.write(0, None, then, fold.batch(*names)) is Outcome.APPLIED
    assert store.write(0, then, meta_at(19_999, depth=2), fold.batch(*names)) is Outcome.APPLIED
    fold.assert_loaded(load_all(store, 0, meta_at(19_999, depth=2), 1, 2), 2)


def test_partitions_do_not_meet(make_store: MakeStore) -> None:
    store, elsewhere = make_store(), make_store(topic="others")
    folds = {}
    for number, (where, partition) in enumerate([(store, 0), (store, 1), (store, 11), (elsewhere, 1)]):
        fold = folds[where, partition] = Fold()
        delta = fold.batch("A", *"B" * number)
        assert where.write(partition, None, meta_at(fold.watermark), delta) is Outcome.APPLIED
    for (where, partition), fold in folds.items():
        load_matches(where, fold, partition=partition)


def _run(*indices: int) -> np.ndarray:
    records = np.zeros(len(indices), record_dtype(1))
    records["index"] = indices
    return records


NONE, ALL = np.zeros(1, np.bool_), np.ones(1, np.bool_)


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (Delta(["A"], np.array([2]), _run(1), NONE, NONE), "same length"),
        (Delta(["A", "B"], np.array([1]), _run(1), NONE, NONE), "same length"),
        (Delta(["A"], np.array([0]), _run(), NONE, NONE), "1 to 8 records"),
        (Delta(["A"], np.array([9]), _run(*range(1, 10)), NONE, NONE), "1 to 8 records"),
        (Delta(["A", "A"], np.array([1, 1]), _run(1, 2), NONE.repeat(2), NONE.repeat(2)), "one run"),
        (Delta(["A"], np.array([1]), _run(0), NONE, NONE), "from 1"),
        (Delta(["A"], np.array([2]), _run(3, 5), NONE, NONE), "one by one"),
        (Delta(["A"], np.array([2]), _run(5, 6), NONE, ALL), "numbered from 1"),
        (Delta(["A" * 65], np.array([1]), _run(1), ALL, NONE), "at most 64 characters"),
        (Delta(["Ä"], np.array([1]), _run(1), ALL, NONE), "ASCII"),
        (Delta(["A"], np.array([1]), np.zeros(1, record_dtype(2)), ALL, NONE), "channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_delta_that_would_tear_a_ring_is_refused_before_it_is_sent(
    store: RedisStore, delta: Delta, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.write(0, None, meta_at(0), delta)
    assert store.read_meta(0) is None


def test_another_depth_needs_another_generation(store: RedisStore) -> None:
    assert store.write(0, None, meta_at(0), Fold().batch("A")) is Outcome.APPLIED
    with pytest.raises(ValueError, match="another generation"):
        store.write(0, meta_at(0), replace(meta_at(1), depth=9), Delta.empty(1))
