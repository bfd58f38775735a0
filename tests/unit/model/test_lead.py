"""How early a falling stretch is flagged, on series worked by hand."""

import numpy as np

from model.lead import delays, median, stretches


def bits(text: str) -> np.ndarray:
    return np.array([float("nan") if c == "?" else float(c) for c in text.replace(" ", "")], np.float32)


def flags(text: str) -> np.ndarray:
    return bits(text) == 1


def one_stock(label: str, before: int = 3) -> tuple[np.ndarray, "object"]:
    y = bits(label)
    return y, stretches(y, np.arange(len(y)), np.zeros(len(y), np.int64), before)


def test_the_example_of_the_module() -> None:
    _, found = one_stock("0 0 0 0 0 1 1 1 1 1 1 0")
    assert (found.earliest.tolist(), found.begin.tolist(), found.last.tolist()) == ([2], [5], [10])
    early = delays(flags("0 0 0 0 1 1 1 1 1 1 0 0"), found)
    late = delays(flags("0 0 0 0 0 0 0 1 1 1 1 1"), found)
    assert early.tolist() == [-1]
    assert late.tolist() == [2]
    assert (late - early).tolist() == [3]


def test_a_flag_too_early_or_too_late_misses() -> None:
    _, found = one_stock("0 0 0 0 0 1 1 0 0")
    assert np.isnan(delays(flags("1 1 0 0 0 0 0 1 1"), found)).all()
    assert delays(flags("1 1 1 0 0 0 0 1 1"), found).tolist() == [-3]
    assert delays(flags("0 0 0 0 0 0 1 1 1"), found).tolist() == [1]


def test_flags_of_an_earlier_stretch_do_not_count_for_the_next() -> None:
    _, found = one_stock("0 1 1 0 1 1 0")
    # The second stretch begins at 4; what counts begins at 3, behind the first one.
    assert found.earliest.tolist() == [0, 3]
    assert np.array_equal(delays(flags("0 1 1 0 0 0 0"), found), [0, np.nan], equal_nan=True)


def test_a_stretch_whose_begin_is_not_seen_is_not_counted() -> None:
    assert len(one_stock("1 1 1 0 0")[1]) == 0
    assert len(one_stock("? 1 1 0 0")[1]) == 0
    assert len(one_stock("0 ? 1 0 0")[1]) == 0
    assert one_stock("1 0 1 1")[1].begin.tolist() == [2]


def test_stretches_end_at_a_gap_and_at_the_next_stock() -> None:
    y = bits("0 1 1 1 | 0 1 | 1 1".replace("|", ""))
    step = np.array([0, 1, 2, 5, 6, 7, 0, 1])
    stock = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    found = stretches(y, step, stock, 3)
    assert found.begin.tolist() == [1, 5]
    assert found.last.tolist() == [2, 5]
    assert found.earliest.tolist() == [0, 4]


def test_nothing_falls_and_nothing_at_all() -> None:
    assert len(one_stock("0 0 0")[1]) == 0
    assert len(one_stock("")[1]) == 0


def test_median_of_weighted_values() -> None:
    values = np.array([5.0, -1.0, 2.0])
    assert median(values, np.ones(3)) == 2
    assert median(values, np.array([3.0, 1.0, 1.0])) == 5
    assert np.isnan(median(values, np.zeros(3)))
