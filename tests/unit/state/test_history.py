"""The history in memory against what it stands for: a deque of the last values for each stock."""

from collections import defaultdict, deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.history import LONG_AGO, History, Updates
from state.layout import FALLING, PREDICTED, Delta, Records, record_dtype

REACH, DEPTH = 3, 4
Batch = list[tuple[str, float]]  # stock and value, in log order


def updates(history: History, batch: Batch) -> Updates:
    """The batch as the engine would hand it over: grouped by row, in log order within a row."""
    rows = dict(history.row_of)
    for stock, _ in batch:
        rows.setdefault(stock, len(rows))
    row = np.array([rows[stock] for stock, _ in batch], np.int64)
    order = np.argsort(row, kind="stable")
    row = row[order]
    seen: dict[int, int] = defaultdict(int)
    rank = []
    for one in row.tolist():
        rank.append(seen[one])
        seen[one] += 1
    start = np.flatnonzero(np.array(rank, np.int64) == 0)
    values = np.array([value for _, value in batch], np.float64)[order].reshape(-1, 1)
    counts = history.count(row)
    return Updates(
        row=row,
        start=start,
        size=np.diff(start, append=len(row)),
        rank=np.array(rank, np.int64),
        index=counts + np.array(rank, np.int64) + 1,
        values=np.repeat(values, history.channels, axis=1) * np.arange(1, history.channels + 1),
        fresh=list(rows)[len(history) :],
    )


def entries(new: Updates, first_offset: int = 0) -> Records:
    """Their ring records: a falling flag for each negative value, a time and an offset to tell them apart."""
    out = np.zeros(len(new.row), record_dtype(new.values.shape[1]))
    out["index"], out["values"] = new.index, new.values
    out["offset"] = first_offset + np.arange(len(new.row))
    out["ts"] = 1_000 + out["offset"]
    out["flags"] = PREDICTED + FALLING * (new.values[:, 0] < 0)
    return out


def fold(history: History, *batches: Batch) -> Delta:
    """Take batches in; the last one's delta."""
    delta = Delta.empty(history.channels)
    for at, batch in enumerate(batches):
        new = updates(history, batch)
        records = entries(new, 1_000 * at)
        history.fold(new, records)
        delta = history.delta(new, records)
    return delta


def window(history: History, batch: Batch, at: int = -1) -> list[float]:
    """The window at one of the batch's updates, by its place among them."""
    new = updates(history, batch)
    return history.windows(new, np.array([np.arange(len(batch))[at]]))[0, :, 0].tolist()


def test_a_window_is_the_ring_and_then_the_batch_oldest_first() -> None:
    history = History(REACH, 1, DEPTH)
    fold(history, [("A", 1), ("B", 10), ("A", 2)])
    assert window(history, [("A", 3)]) == [1, 2, 3]
    assert window(history, [("A", 3), ("A", 4)]) == [2, 3, 4]
    assert window(history, [("A", v) for v in (3, 4, 5, 6, 7)]) == [5, 6, 7]
    assert window(history, [("A", 3), ("B", 20)]) == [0, 10, 20]  # zeros where there is no value yet
    assert window(history, [("C", 7)]) == [0, 0, 7]


def test_windows_move_nothing() -> None:
    history = History(REACH, 1, DEPTH)
    fold(history, [("A", 1)])
    assert window(history, [("A", 9), ("C", 9)]) == window(history, [("A", 9), ("C", 9)])
    assert (len(history), history.stocks, history.count(np.array([0])).tolist()) == (1, ["A"], [1])


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ABCDEFG"), st.integers(-99, 99)), max_size=12), max_size=6),
    st.integers(1, 5),
    st.integers(1, 2),
)
def test_windows_are_those_of_a_deque_for_each_stock(batches: list[Batch], reach: int, channels: int) -> None:
    history = History(reach, channels, reach + 2)
    naive: dict[str, deque[float]] = defaultdict(lambda: deque([0.0] * reach, reach))
    counts: dict[str, int] = defaultdict(int)
    for batch in batches:
        new = updates(history, batch)
        found = history.windows(new, np.arange(len(batch)))
        assert found.shape == (len(batch), reach, channels)
        expected: dict[str, list[list[float]]] = defaultdict(list)
        for stock, value in batch:
            naive[stock].append(value)
            counts[stock] += 1
            expected[stock].append(list(naive[stock]))
        names = [*history.stocks, *new.fresh]
        grouped = [one for row in sorted(set(new.row.tolist())) for one in expected[names[row]]]
        for channel in range(channels):
            assert found[:, :, channel].tolist() == [[v * (channel + 1) for v in one] for one in grouped]
        history.fold(new, entries(new))
        rows = np.arange(len(history))
        assert history.count(rows).tolist() == [counts[stock] for stock in history.stocks]
        assert (history.newest(rows)["flags"] & FALLING != 0).tolist() == [
            naive[stock][-1] < 0 for stock in history.stocks
        ]
        assert history.newest(rows)["values"][:, 0].tolist() == [naive[stock][-1] for stock in history.stocks]
        assert history.falling_stocks == sum(naive[stock][-1] < 0 for stock in history.stocks)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(-99, 99)), max_size=12), max_size=6),
    st.integers(1, 4),
)
def test_an_earlier_record_is_the_stocks_own_of_so_many_updates_before(batches: list[Batch], steps: int) -> None:
    history = History(steps + 1, 1, 8)
    naive: dict[str, list[int]] = defaultdict(list)
    for batch in batches:
        new = updates(history, batch)
        expected: dict[str, list[int]] = defaultdict(list)
        for stock, value in batch:
            naive[stock].append(value)
            expected[stock].append(naive[stock][-1 - steps] if len(naive[stock]) > steps else 0)
        names = [*history.stocks, *new.fresh]
        grouped = [one for row in sorted(set(new.row.tolist())) for one in expected[names[row]]]
        asked = (new.index > steps).nonzero()[0]
        found = history.earlier(new, entries(new), asked, steps)
        assert found["values"][:, 0].tolist() == np.array(grouped, float)[asked].tolist()
        assert (found["index"] == new.index[asked] - steps).all()
        history.fold(new, entries(new))


def test_only_the_wanted_windows_are_gathered_and_none_is_fine() -> None:
    history = History(REACH, 1, DEPTH)
    new = updates(history, [("A", 1), ("A", 2), ("B", 3)])
    assert history.windows(new, np.array([1]))[:, :, 0].tolist() == [[0, 1, 2]]
    assert history.windows(new, np.array([], np.int64)).shape == (0, REACH, 1)
    nothing = updates(history, [])
    assert history.windows(nothing, np.array([], np.int64)).shape == (0, REACH, 1)
    history.fold(nothing, entries(nothing))
    assert len(history) == 0


def test_a_new_stock_has_no_newest_record() -> None:
    history = History(REACH, 1, DEPTH)
    fold(history, [("A", -1)])
    newest = history.newest(np.array([0, 1]))
    assert newest["index"].tolist() == [1, 0]
    assert newest["ts"].tolist() == [1_000, LONG_AGO]
    for name in ("forecast", "low", "high", "scale", "probability"):
        assert np.isnan(newest[name][1])
    assert (history.newest(np.array([0, 1]))["flags"] & FALLING != 0).tolist() == [True, False]
    assert history.count(np.array([0, 1])).tolist() == [1, 0]


def test_ten_thousand_stocks_in_batches_of_odd_sizes_keep_their_values_while_it_grows() -> None:
    history = History(REACH, 1, DEPTH)
    at = 0
    for size in (1, 62, 1, 1, 97, 838, 9_000):
        fold(history, [(f"S{n}", float(n)) for n in range(at, at + size)])
        at += size
    assert at == len(history) == 10_000
    rows = np.arange(10_000)
    assert history.newest(rows)["values"][:, 0].tolist() == list(range(10_000))
    assert history.count(rows).tolist() == [1] * 10_000
    assert all(history.row_of[f"S{n}"] == n for n in (0, 1, 63, 64, 9_999))


@pytest.mark.parametrize(("reach", "depth"), [(0, 4), (5, 4)])
def test_a_reach_that_the_ring_does_not_hold_is_refused(reach: int, depth: int) -> None:
    with pytest.raises(ValueError, match=f"a history of {depth} values cannot hold the {reach}"):
        History(reach, 1, depth)


# --- what Redis gets


def _delta(delta: Delta) -> list[tuple[str, list[int], list[float], bool, bool]]:
    """Stock by stock: indices, values, new, rewrite."""
    ends = np.cumsum(delta.counts)
    runs = [delta.records[end - count : end] for end, count in zip(ends, delta.counts, strict=True)]
    return [
        (stock, run["index"].tolist(), run["values"][:, 0].tolist(), bool(new), bool(rewrite))
        for stock, run, new, rewrite in zip(delta.stocks, runs, delta.new, delta.rewrite, strict=True)
    ]


def test_a_delta_appends_and_names_the_new_stocks() -> None:
    history = History(REACH, 1, DEPTH)
    fold(history, [("A", 1), ("B", 10)])
    assert _delta(fold(history, [("C", 5), ("A", 2), ("C", 6)])) == [
        ("A", [2], [2], False, False),
        ("C", [1, 2], [5, 6], True, False),
    ]


def test_a_run_longer_than_the_ring_is_cut_to_it_and_replaces_it() -> None:
    history = History(REACH, 1, DEPTH)
    fold(history, [("A", 0)])
    delta = fold(history, [("A", v) for v in (1, 2, 3, 4, 5, 6)] + [("B", v) for v in (1, 2, 3, 4)])
    assert _delta(delta) == [
        ("A", [4, 5, 6, 7], [3, 4, 5, 6], False, True),
        ("B", [1, 2, 3, 4], [1, 2, 3, 4], True, False),  # fills the ring, and no more
    ]


def test_a_rewrite_gives_what_memory_holds_numbered_from_one_and_goes_on_from_there() -> None:
    history = History(REACH, 1, DEPTH)
    fold(history, [("A", v) for v in (1, 2, 3, 4, 5)] + [("B", -7)])
    delta = history.rewrite(np.array([1, 0]))
    assert _delta(delta) == [("B", [1], [-7], True, True), ("A", [1, 2, 3], [3, 4, 5], True, True)]
    assert _delta(history.rewrite(np.array([1, 0]))) == _delta(delta)  # a second call is the same
    assert delta.records["offset"].tolist() == [5, 2, 3, 4]  # all but the index is what it was
    assert window(history, [("A", 6)]) == [4, 5, 6]
    assert _delta(fold(history, [("A", 6)])) == [("A", [4], [6], False, False)]
    assert (history.newest(np.array([0, 1]))["flags"] & FALLING != 0).tolist() == [False, True]


def _rings(history: History, rows: list[int]) -> tuple[list[str], np.ndarray, Records]:
    """As the store loads them: newest last, index 0 where there is none."""
    counts = history.count(np.array(rows, np.int64))
    records = np.zeros((len(rows), history.reach), record_dtype(history.channels))
    for n, row in enumerate(rows):
        for back in range(min(int(counts[n]), history.reach)):
            records[n, -1 - back] = history._records[row, (counts[n] - 1 - back) % history.reach]
    return [history.stocks[row] for row in rows], counts, records


@settings(deadline=None)
@given(
    batch=st.lists(st.tuples(st.sampled_from("ABCDE"), st.integers(-99, 99)), max_size=40),
    cut=st.integers(0, 40),
    rewritten=st.booleans(),
)
def test_loaded_or_rewritten_rings_go_on_as_if_nothing_had_happened(batch: Batch, cut: int, *, rewritten: bool) -> None:
    whole = History(REACH, 1, DEPTH)
    fold(whole, batch[:cut])
    if rewritten:
        whole.rewrite(np.arange(len(whole)))
    loaded = History(REACH, 1, DEPTH)
    loaded.load(*_rings(whole, list(range(len(whole)))))
    through = History(REACH, 1, DEPTH)
    fold(through, batch[:cut])

    new = updates(through, batch[cut:])
    expected = through.windows(new, np.arange(len(new.row)))
    assert np.array_equal(loaded.windows(new, np.arange(len(new.row))), expected)
    assert np.array_equal(whole.windows(new, np.arange(len(new.row))), expected)
    rows = np.arange(len(through) + 1)  # a stock that is not there, too
    assert np.array_equal((loaded.newest(rows)["flags"] & FALLING != 0), (through.newest(rows)["flags"] & FALLING != 0))
    assert np.array_equal(loaded.newest(rows)["offset"], through.newest(rows)["offset"])
    assert np.array_equal(loaded.newest(rows)["ts"], through.newest(rows)["ts"])


def test_a_load_that_says_its_size_first_is_never_copied() -> None:
    source = History(REACH, 1, DEPTH)
    fold(source, [(f"S{number}", number) for number in range(100)])
    history = History(REACH, 1, DEPTH)
    history.reserve(100)
    rows = history._records
    for at in range(0, 100, 10):
        history.load(*_rings(source, list(range(at, at + 10))))
    assert history._records is rows
    assert len(rows) == 100
    assert history.stocks == source.stocks


def test_rings_are_loaded_in_chunks_after_each_other() -> None:
    source = History(REACH, 1, DEPTH)
    fold(source, [("A", 1), ("B", 2), ("B", 3), ("C", 4)])
    history = History(REACH, 1, DEPTH)
    history.load(*_rings(source, [2]))
    history.load(*_rings(source, [1, 0]))
    assert history.stocks == ["C", "B", "A"]
    assert window(history, [("B", 9)]) == [2, 3, 9]
    assert window(history, [("C", 9)]) == [0, 4, 9]
