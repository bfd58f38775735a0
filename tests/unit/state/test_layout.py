import numpy as np
import pytest

from state.layout import Delta, Keys, Meta, record_dtype
from state.servers import slot_of


def test_the_keys_are_those_of_the_design() -> None:
    keys = Keys("downtick", "desk", "prices", 3)
    assert keys.meta == "downtick:{desk/prices/3}:meta"
    assert keys.stocks("9f") == "downtick:{desk/prices/3}:9f:stocks"
    assert keys.ring("9f", "AAPL") == "downtick:{desk/prices/3}:9f:h:AAPL"
    assert keys.resume == "downtick:{desk/prices/3}:resume"


def test_slots_are_those_that_redis_computes() -> None:
    assert slot_of("123456789") == 0x31C3  # the test vector of the cluster's specification
    assert slot_of("user1000") == 3443  # CLUSTER KEYSLOT on Redis 7.0


def test_a_record_grows_by_eight_bytes_per_channel() -> None:
    assert [record_dtype(channels).itemsize for channels in (1, 2, 5)] == [72, 80, 104]
    with pytest.raises(ValueError, match="at least one channel"):
        record_dtype(0)


def test_meta_survives_its_encoding() -> None:
    meta = Meta("a1B2", -1, "cluster", "", 1, 128, "2026-11-23T120000Z-3fa9c1", "volume,spread", 17)
    assert Meta.decode(meta.encode()) == meta
    assert meta.channels == 3


def test_meta_without_fields_has_one_channel() -> None:
    assert Meta("a", 0, "", "", 1, 1, "", "").channels == 1


def test_what_is_missing_in_an_older_meta_is_empty_or_zero() -> None:
    assert Meta.decode({"generation": "a", "watermark": "5"}) == Meta("a", 5, "", "", 0, 0, "", "", 0)


@pytest.mark.parametrize("found", [{}, {"generation": "a"}, {"watermark": "5"}, {"other:b": "retired"}])
def test_no_generation_or_no_watermark_is_no_meta(found: dict[str, str]) -> None:
    assert Meta.decode(found) is None


@pytest.mark.parametrize(
    "text",
    ["x", "1.5", "1e3", " 1", "1\n", "", "99999999999999999999", "05", "-0", "+5"],
)
def test_a_watermark_that_is_not_as_we_write_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="watermark"):
        Meta.decode({"generation": "a", "watermark": text})


@pytest.mark.parametrize("generation", ["", "a:b", "a b", "ä", "a\n"])
def test_a_generation_that_could_not_be_part_of_a_key_is_refused(generation: str) -> None:
    with pytest.raises(ValueError, match="generation is letters and digits"):
        Meta(generation, 0, "", "", 1, 1, "", "")


def test_a_delta_splits_between_stocks() -> None:
    records = np.zeros(6, record_dtype(1))
    records["index"] = [1, 2, 3, 7, 1, 2]
    delta = Delta(
        ["A", "B", "C"], np.array([3, 1, 2]), records, np.array([True, False, True]), np.array([False, True, False])
    )
    first, second = delta.split(2)
    assert (first.stocks, first.counts.tolist(), first.records["index"].tolist()) == (["A", "B"], [3, 1], [1, 2, 3, 7])
    assert (first.new.tolist(), first.rewrite.tolist()) == ([True, False], [False, True])
    assert (second.stocks, second.counts.tolist(), second.records["index"].tolist()) == (["C"], [2], [1, 2])
    assert list(Delta.empty(1).split(2)) == []
