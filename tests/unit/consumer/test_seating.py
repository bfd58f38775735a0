"""The seating table (docs/decisions/seating.md), row by row: facts in, plan out."""

from dataclasses import replace

import pytest

from consumer.seating import Facts, Plan, Policy, Rings, SeatingRefused, SeatingStopped, seat
from state.layout import LAYOUT, Meta

# The log holds offsets 10 to 99; the group goes on at 50; Redis holds the fold up to 49.
META = Meta("g1", 49, "cluster", "topic-1", LAYOUT, 128, "v1", "", 0)
FACTS = Facts(
    committed=50,
    meta=META,
    rings_broken=0,
    log_start=10,
    log_end=100,
    cluster_id="cluster",
    topic_id="topic-1",
    depth=128,
    fields="",
)
WHOLE = FACTS._replace(log_start=0)  # a log that still has its first record
POLICY = Policy()


def held(watermark: int, facts: Facts = FACTS, **changes: object) -> Facts:
    """The facts with Redis at this watermark, and other changes to its meta."""
    return facts._replace(meta=replace(META, watermark=watermark, **changes))  # type: ignore[arg-type]


def test_no_c_no_w_is_a_first_start_at_the_logs_begin_which_is_committed() -> None:
    plan = seat(FACTS._replace(committed=None, meta=None), POLICY)
    assert plan == Plan("first start", Rings.NEW, seek=10, output_from=10, commit_start=True)


def test_a_first_start_at_latest_begins_at_the_logs_end() -> None:
    plan = seat(FACTS._replace(committed=None, meta=None), Policy(start="latest"))
    assert plan == Plan("first start", Rings.NEW, seek=100, output_from=100, commit_start=True)


def test_no_c_but_w_stops_and_names_the_two_ways_on() -> None:
    with pytest.raises(SeatingStopped) as stopped:
        seat(FACTS._replace(committed=None), POLICY)
    assert "downtick state reset" in str(stopped.value)
    assert "resume at offset 50 with `downtick run --accept-gap`" in str(stopped.value)


def test_no_c_but_w_goes_on_at_w_plus_1_when_the_gap_is_accepted() -> None:
    plan = seat(FACTS._replace(committed=None), Policy(accept_gap=True))
    assert plan == Plan("in step", Rings.LOAD, seek=50, output_from=50, commit_start=True)


def test_w_is_c_minus_1_loads_and_goes_on() -> None:
    assert seat(FACTS, POLICY) == Plan("in step", Rings.LOAD, seek=50, output_from=50)


@pytest.mark.parametrize("watermark", [9, 10, 48])
def test_w_below_c_minus_1_and_within_the_log_catches_up_silently(watermark: int) -> None:
    assert seat(held(watermark), POLICY) == Plan("catch up", Rings.LOAD, seek=watermark + 1, output_from=50)


def test_w_below_the_log_leaves_a_gap_which_is_counted() -> None:
    # 6, 7, 8 and 9 were never folded and are gone
    assert seat(held(5), POLICY) == Plan("gap", Rings.NEW, seek=10, output_from=50, missing=4)


def test_no_w_folds_the_whole_log_again_and_counts_what_it_lost() -> None:
    assert seat(FACTS._replace(meta=None), POLICY) == Plan("no watermark", Rings.NEW, 10, 50, missing=10)
    assert seat(WHOLE._replace(meta=None), POLICY) == Plan("no watermark", Rings.NEW, 0, 50, missing=0)


def test_broken_rings_are_folded_again() -> None:
    assert seat(WHOLE._replace(rings_broken=3), POLICY) == Plan("rings broken", Rings.NEW, 0, 50, broken=3)
    assert seat(FACTS._replace(rings_broken=3), POLICY) == Plan("rings broken", Rings.NEW, 10, 50, missing=10, broken=3)


def test_a_rebuild_goes_back_max_records_at_most() -> None:
    assert seat(WHOLE._replace(meta=None), Policy(max_records=20)) == Plan(
        "no watermark", Rings.NEW, 30, 50, missing=30
    )
    assert seat(WHOLE._replace(meta=None), Policy(max_records=50)) == Plan("no watermark", Rings.NEW, 0, 50)


@pytest.mark.parametrize("watermark", [50, 99, 1_000])
def test_w_above_c_minus_1_means_that_offsets_were_rewound(watermark: int) -> None:
    assert seat(held(watermark, WHOLE), POLICY) == Plan("offsets rewound", Rings.NEW, 0, 50)


def test_another_topic_id_means_that_the_topic_was_recreated() -> None:
    assert seat(held(49, WHOLE, topic_id="topic-0"), POLICY) == Plan("topic recreated", Rings.NEW, 0, 50)


def test_a_recreated_topic_without_c_is_a_first_start() -> None:
    facts = held(49, WHOLE, topic_id="topic-0")._replace(committed=None)
    assert seat(facts, POLICY) == Plan("topic recreated", Rings.NEW, 0, 0, commit_start=True)


@pytest.mark.parametrize("committed", [9, 101])
def test_c_outside_the_log_stops(committed: int) -> None:
    with pytest.raises(SeatingStopped) as stopped:
        seat(held(committed - 1)._replace(committed=committed), POLICY)
    assert f"next offset {committed} lies outside the log [10, 100)" in str(stopped.value)
    assert "--accept-gap" in str(stopped.value)


@pytest.mark.parametrize("committed", [10, 100])
def test_c_at_either_end_of_the_log_is_inside(committed: int) -> None:
    plan = seat(held(committed - 1)._replace(committed=committed), POLICY)
    assert plan == Plan("in step", Rings.LOAD, committed, committed)


def test_an_accepted_gap_before_the_log_goes_on_at_its_begin_and_counts_what_is_missing() -> None:
    plan = seat(held(3)._replace(committed=4), Policy(accept_gap=True))
    assert plan == Plan("gap accepted", Rings.NEW, seek=10, output_from=10, commit_start=True, missing=6)


def test_an_accepted_gap_after_the_log_goes_on_at_its_end() -> None:
    plan = seat(held(199, WHOLE)._replace(committed=200), Policy(accept_gap=True))
    assert plan == Plan("gap accepted", Rings.NEW, seek=0, output_from=100, commit_start=True)


def test_an_empty_log_is_no_gap() -> None:
    empty = FACTS._replace(log_start=50, log_end=50)
    assert seat(empty, POLICY) == Plan("in step", Rings.LOAD, 50, 50)


@pytest.mark.parametrize("facts", [FACTS, FACTS._replace(committed=None)])
def test_another_cluster_id_is_refused(facts: Facts) -> None:
    with pytest.raises(SeatingRefused, match="two systems share these keys"):
        seat(facts._replace(cluster_id="other"), Policy(accept_gap=True))


def test_a_newer_layout_is_refused() -> None:
    with pytest.raises(SeatingRefused, match=f"layout {LAYOUT + 1}, this program knows up to {LAYOUT}"):
        seat(held(49, layout=LAYOUT + 1), POLICY)


@pytest.mark.parametrize("changes", [{"depth": 64}, {"depth": 256}, {"layout": LAYOUT - 1}])
def test_another_depth_or_an_older_layout_is_converted(changes: dict[str, int]) -> None:
    assert seat(held(49, **changes), POLICY) == Plan("in step", Rings.CONVERT, 50, 50)
    assert seat(held(40, **changes), POLICY) == Plan("catch up", Rings.CONVERT, 41, 50)


def test_other_fields_are_folded_again_because_rings_lack_them() -> None:
    assert seat(held(49, WHOLE, fields="volume"), POLICY) == Plan("other fields", Rings.NEW, 0, 50)


def test_another_model_keeps_the_rings() -> None:
    assert seat(held(49, model="v0"), POLICY) == Plan("in step", Rings.LOAD, 50, 50)


def test_no_plan_reads_before_the_log_or_publishes_outside_it() -> None:
    """Every combination of facts ends in a plan within the log, or in words."""
    ends = stops = 0
    for committed in (None, 0, 9, 10, 50, 100, 101):
        for watermark in (None, -1, 8, 9, 10, 49, 50, 99, 150):
            for broken in (0, 2):
                for policy in (POLICY, Policy("latest"), Policy(max_records=5), Policy(accept_gap=True)):
                    facts = FACTS if watermark is None else held(watermark)
                    facts = facts._replace(committed=committed, rings_broken=broken)
                    facts = facts._replace(meta=None) if watermark is None else facts
                    try:
                        plan = seat(facts, policy)
                    except SeatingStopped:
                        stops += 1
                        continue
                    ends += 1
                    assert 10 <= plan.seek <= plan.output_from <= 100
                    if committed is not None and 10 <= committed <= 100:
                        assert plan.output_from == committed  # nothing is told twice, nothing is left out
    # stopped by 3 of 4 policies: no c but one of 8 w (48), and c at one of 3 places outside the log (162)
    assert (ends, stops) == (504 - 210, 210)
