import numpy as np

from state.layout import record_dtype
from state.rings import decode_rings


def ring(depth: int, count: int) -> bytes:
    """What a stock's ring holds after `count` updates at offsets 10, 20, …, written one by one."""
    slots = np.zeros(depth, record_dtype(1))
    for index in range(1, count + 1):
        slots[(index - 1) % depth]["index"] = index
        slots[(index - 1) % depth]["offset"] = 10 * index
    return slots[: min(count, depth)].tobytes()


def test_rings_of_all_lengths_are_decoded_side_by_side_newest_last() -> None:
    counts = [1, 3, 4, 5, 9, 0]
    decoded = decode_rings([ring(4, count) for count in counts], 4, 1, 3, 90)
    assert decoded.valid.tolist() == [True] * 5 + [False]
    assert decoded.counts[:5].tolist() == counts[:5]
    assert decoded.records["index"][:5].tolist() == [[0, 0, 1], [1, 2, 3], [2, 3, 4], [3, 4, 5], [7, 8, 9]]
    assert decoded.records["offset"][:5].tolist()[4] == [70, 80, 90]


def test_more_may_be_asked_for_than_a_ring_holds() -> None:
    decoded = decode_rings([ring(2, 5)], 2, 1, 4, 50)
    assert decoded.records["index"].tolist() == [[0, 0, 4, 5]]


def test_the_newest_record_may_be_at_the_watermark_but_not_past_it() -> None:
    assert decode_rings([ring(4, 5)], 4, 1, 4, 50).valid.all()
    assert not decode_rings([ring(4, 5)], 4, 1, 4, 49).valid.any()


def test_no_rings_are_no_rows() -> None:
    decoded = decode_rings([], 4, 1, 3, 0)
    assert (decoded.valid.shape, decoded.counts.shape, decoded.records.shape) == ((0,), (0,), (0, 3))


def test_missing_foreign_and_oversized_values_are_invalid_and_harm_no_neighbour() -> None:
    decoded = decode_rings([None, ring(4, 2), b"", b"x" * 10_000, b"y" * 72], 4, 1, 2, 99)
    assert decoded.valid.tolist() == [False, True, False, False, False]
    assert decoded.records["index"][1].tolist() == [1, 2]
