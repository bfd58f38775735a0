"""Staging: which events count, what is said of them, and what stays as it was. The model is doubles.SlopeModel."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from consumer.events import EventDecoder, Rejection
from consumer.stage import SCORE_CAP, Admitted, Scores, admit, consecutive_rejections, judge, predictable
from model.predictor import Predictions
from state.history import History
from state.layout import FALLING, FLIPPED, PREDICTED, Records
from tests.unit.consumer.doubles import NOT_FINITE, Message, SlopeModel, event

MODEL = SlopeModel()
THRESHOLDS = (MODEL.falling_on, MODEL.falling_off)


@dataclass
class Stage:
    """One partition's history, batch after batch."""

    max_stocks: int = 1_000

    def __post_init__(self) -> None:
        self.history = History(MODEL.reach, 1, 8)
        self.admitted: Admitted
        self.entries: Records
        self.scores: Scores

    def batch(self, *messages: Message) -> dict[str, list[int]]:
        """Take a batch in; offsets by what became of them (updates without numbers count as updates, too)."""
        events = EventDecoder((), 65_536, 86_400).decode(messages)
        self.admitted = admitted = admit(self.history, events, self.max_stocks)
        wanted = predictable(admitted, MODEL.min_history)
        predictions = MODEL.predict(self.history.windows(admitted.updates, wanted))
        ((self.entries, unpredicted, self.scores),) = judge([admitted], [wanted], predictions, THRESHOLDS)
        self.history.fold(admitted.updates, self.entries)
        found: dict[str, list[int]] = {"update": sorted(self.entries["offset"].tolist())}
        for rejection in [*events.rejections, *admitted.rejections, *unpredicted]:
            found.setdefault(rejection.reason, []).append(messages[rejection.position].offset())
        if len(admitted.duplicates):
            found["duplicate"] = sorted(events.offset[admitted.duplicates].tolist())
        return found

    def values(self, stock: str, *values: float) -> "Stage":
        """One batch of good updates of one stock."""
        start = int(self.history.newest(np.array([self.history.row_of.get(stock, len(self.history))]))["ts"][0])
        start = max(start, 0)
        self.batch(*[event(stock, value, start + 1 + n, n) for n, value in enumerate(values)])
        return self

    def flags(self) -> list[str]:
        """Each update of the last batch: f or - for the flag, ! where it flipped, ? where nothing was predicted."""
        return [
            ("f" if flags & FALLING else "-") + ("!" if flags & FLIPPED else "") + ("" if flags & PREDICTED else "?")
            for flags in self.entries["flags"].tolist()
        ]


# --- late ones and duplicates


def test_an_event_older_than_the_last_accepted_one_is_late() -> None:
    stage = Stage()
    assert stage.batch(event("A", 1, 10, 0), event("A", 2, 9, 1), event("A", 3, 10, 2)) == {
        "update": [0, 2],
        "late": [1],
    }
    assert stage.batch(event("A", 4, 9, 3), event("B", 4, 9, 4)) == {"update": [4], "late": [3]}


def test_the_message_of_a_late_one_says_how_late() -> None:
    stage = Stage()
    stage.batch(event("A", 1, 10), event("A", 2, 3))
    assert [r.message for r in stage.admitted.rejections] == ["its time is 7 ms before the newest of 'A'"]


def test_the_same_time_and_value_is_a_duplicate_and_the_same_time_with_another_value_is_not() -> None:
    stage = Stage()
    assert stage.batch(event("A", 1, 10, 0), event("A", 1, 10, 1), event("A", 2, 10, 2), event("A", 1, 10, 3)) == {
        "update": [0, 2, 3],
        "duplicate": [1],
    }
    assert stage.batch(event("A", 1, 10, 4), event("A", 1, 11, 5)) == {"update": [5], "duplicate": [4]}


def test_a_chain_of_duplicates_is_one_update() -> None:
    stage = Stage()
    batch = [event("A", 1, 10, n) for n in range(4)] + [event("A", 1, 11, 4), event("A", 1, 11, 5)]
    assert stage.batch(*batch) == {"update": [0, 4], "duplicate": [1, 2, 3, 5]}


def test_late_ones_among_duplicates_hide_nothing() -> None:
    stage = Stage()
    found = stage.batch(
        event("A", 1, 10, 0),
        event("A", 1, 5, 1),  # late
        event("A", 1, 10, 2),  # a duplicate of 0
        event("A", 7, 9, 3),  # late, though newer than 1
        event("A", 1, 10, 4),  # still a duplicate of 0
        event("A", 2, 10, 5),
        event("A", 2, 9, 6),  # late
        event("A", 2, 10, 7),  # a duplicate of 5
    )
    assert found == {"update": [0, 5], "late": [1, 3, 6], "duplicate": [2, 4, 7]}


def test_a_late_one_does_not_make_the_clock_go_back() -> None:
    stage = Stage()
    found = stage.batch(event("A", 1, 10, 0), event("A", 2, 5, 1), event("A", 3, 7, 2), event("A", 4, 10, 3))
    assert found == {"update": [0, 3], "late": [1, 2]}


def test_stocks_do_not_make_each_other_late() -> None:
    stage = Stage()
    batch = [event("A", 1, 10, 0), event("B", 1, 5, 1), event("A", 2, 11, 2), event("B", 2, 4, 3), event("B", 1, 5, 4)]
    assert stage.batch(*batch) == {"update": [0, 1, 2], "late": [3], "duplicate": [4]}


def test_times_before_1970_are_times_like_others() -> None:
    stage = Stage()
    assert stage.batch(event("A", 1, -62_135_596_800_000, 0), event("A", 2, -5, 1), event("A", 3, -6, 2)) == {
        "update": [0, 1],
        "late": [2],
    }


def test_minus_zero_repeats_zero() -> None:
    assert Stage().batch(event("A", 0.0, 10, 0), event("A", -0.0, 10, 1)) == {"update": [0], "duplicate": [1]}


# --- too many stocks


def test_stocks_beyond_the_limit_are_refused_and_known_ones_go_on() -> None:
    stage = Stage(max_stocks=2)
    first = stage.batch(
        event("A", 1, 1, 0), event("B", 1, 1, 1), event("C", 1, 1, 2), event("A", 2, 2, 3), event("C", 2, 2, 4)
    )
    assert first == {"update": [0, 1, 3], "stock_limit": [2, 4]}
    assert stage.batch(event("C", 3, 3, 5), event("B", 3, 3, 6)) == {"update": [6], "stock_limit": [5]}
    assert stage.history.stocks == ["A", "B"]


def test_a_stock_over_the_limit_is_never_late() -> None:
    stage = Stage(max_stocks=1)
    assert stage.batch(event("A", 1, 10, 0), event("B", 1, 10, 1), event("B", 1, 5, 2), event("A", 1, 5, 3)) == {
        "update": [0],
        "stock_limit": [1, 2],
        "late": [3],
    }


# --- what is predicted


def test_a_stock_is_predicted_from_its_min_history_th_value_on() -> None:
    stage = Stage()
    assert stage.values("A", 5, 5).flags() == ["-?", "-?"]
    assert stage.values("A", 5).flags() == ["-"]


def test_an_entry_is_all_that_is_known_of_an_update() -> None:
    stage = Stage()
    stage.batch(event("A", 10, 100, 7), event("A", 9, 200, 8), event("A", 7, 300, 9))
    last = stage.entries[2]
    assert (last["index"], last["offset"], last["ts"], last["values"].tolist()) == (3, 9, 300, [7.0])
    # 10 9 7: fell by 3 → 0.9; the last step was −2 → 5, ± 1
    assert (last["probability"], last["forecast"], last["low"], last["high"], last["scale"]) == (
        np.float32(0.9),
        5.0,
        4.0,
        6.0,
        2.0,
    )
    assert all(math.isnan(stage.entries[1][name]) for name in ("probability", "forecast", "low", "high", "scale"))


def test_a_stock_many_times_in_a_batch_sees_its_own_earlier_updates() -> None:
    values = [10, 9, 8, 8, 8, 9, 20, 19, 17, 17]
    together, apart = Stage(), Stage()
    together.values("A", *values)
    once = together.entries
    alone = [apart.values("A", value).entries[0] for value in values]
    for name in ("index", "values", "forecast", "probability", "flags"):
        assert np.array_equal(once[name], np.array([entry[name] for entry in alone]), equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [(0.0, 0.0, 0.0), (-0.0, 0.0, -0.0), (5e-324, 5e-324, 0.0), (1e308, 1e308, 1e308), (-1e308, -1e308, -1e308)],
)
def test_a_series_at_the_edge_of_floats_is_predicted_and_scored(values: tuple[float, ...]) -> None:
    stage = Stage().values("A", *values)
    assert stage.flags() == ["-?", "-?", "-"]
    assert np.array_equal(stage.entries["values"][:, 0], values)
    stage.values("A", values[0])
    assert stage.scores.error.tolist() == [0]
    assert stage.scores.hit.tolist() == [True]


def test_a_window_without_finite_numbers_is_a_dead_letter_and_the_history_keeps_the_value() -> None:
    stage = Stage()
    found = stage.batch(*[event("A", value, n, n) for n, value in enumerate([10, 9, 7, NOT_FINITE, 12])])
    assert found == {"update": [0, 1, 2, 3, 4], "model_not_finite": [3]}
    assert stage.flags() == ["-?", "-?", "f!", "f?", "-!"]  # 7 13 12 rose: 0.1
    assert stage.entries["values"][3] == NOT_FINITE
    assert math.isnan(stage.entries["forecast"][3])
    assert stage.scores.position.tolist() == [3]  # the forecast at 7 is settled by 13; none was made at 13


@pytest.mark.parametrize("broken", ["probability", "forecast", "low", "high", "scale"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_any_number_that_is_not_finite_makes_the_prediction_a_dead_letter(broken: str, number: float) -> None:
    history = History(1, 1, 8)
    admitted = admit(history, EventDecoder((), 99, 9).decode([event("A", 1, 1, 0), event("B", 1, 1, 1)]), 9)
    columns = {name: np.array([1.0, 1.0]) for name in ("forecast", "low", "high", "scale")}
    columns["probability"] = np.array([0.9, 0.9], np.float32)
    columns[broken][0] = number
    ((entries, rejections, _),) = judge([admitted], [np.array([0, 1])], Predictions(**columns), THRESHOLDS)  # type: ignore[arg-type]
    assert [(r.position, r.reason) for r in rejections] == [(0, "model_not_finite")]
    assert entries["flags"].tolist() == [0, FALLING + PREDICTED + FLIPPED]
    assert math.isnan(entries["probability"][0])


# --- the falling flag


def test_the_flag_goes_on_at_the_upper_threshold_off_below_the_lower_and_stays_in_between() -> None:
    # fell within three values by:   0      1        2       1      1     0
    #                  probability  0.1    0.5      0.9     0.5    0.5   0.1
    assert Stage().values("A", 5, 5, 5, 4, 3, 3, 2, 3).flags() == ["-?", "-?", "-", "-", "f!", "f", "f", "-!"]


def test_a_first_on_flips() -> None:
    assert Stage().values("A", 9, 5, 1).flags()[-1] == "f!"


def test_the_flag_and_its_edges_cross_the_borders_of_batches() -> None:
    stage = Stage()
    flags = [stage.values("A", value).flags()[0] for value in (5, 5, 5, 4, 3, 3, 2, 3)]
    assert flags == ["-?", "-?", "-", "-", "f!", "f", "f", "-!"]


def test_each_stock_has_its_own_flag() -> None:
    stage = Stage()
    stage.values("A", 9, 5, 1)
    stage.values("B", 1, 5, 9)
    stage.batch(event("A", 0, 9), event("B", 9, 9), event("B", 5, 10), event("A", 0, 10))
    assert stage.history.stocks == ["A", "B"]
    assert stage.flags() == ["f", "f", "-", "f!"]  # A: 5 1 0, 1 0 0 (0.5); B: 5 9 9, 9 9 5
    assert stage.history.falling_stocks == 2


def _judged(*probabilities: float, thresholds: tuple[float, float], before: bool = False) -> list[str]:
    """Flags of one stock's updates, straight from probabilities."""
    stage = Stage()
    n = len(probabilities)
    admitted = admit(History(1, 1, 8), EventDecoder((), 99, 9).decode([event("A", i, i, i) for i in range(n)]), 9)
    one = np.ones(n)
    predictions = Predictions(np.array(probabilities, np.float32), one, one, one, one)
    admitted.before["flags"] = FALLING * before
    ((stage.entries, _, _),) = judge([admitted], [np.arange(n)], predictions, thresholds)
    return stage.flags()


def test_on_is_at_or_above_and_off_is_below_the_threshold() -> None:
    assert _judged(0.5, 0.75, 0.25, 0.2499, thresholds=(0.75, 0.25)) == ["-", "f!", "f", "-!"]


def test_the_unrounded_float32_is_compared_with_the_threshold() -> None:
    # float32(0.7) is 0.699999988…: below a threshold of 0.7, though both print as 0.7
    assert _judged(0.7, thresholds=(0.7, 0.3)) == ["-"]
    assert _judged(0.7, thresholds=(float(np.float32(0.7)), 0.3)) == ["f!"]
    # float32(0.3) is 0.300000012…: not below 0.3
    assert _judged(0.3, thresholds=(0.7, 0.3), before=True) == ["f"]


def test_a_flag_that_was_on_before_is_no_flip() -> None:
    assert _judged(0.9, 0.5, thresholds=(0.75, 0.25), before=True) == ["f", "f"]
    assert _judged(0.5, 0.1, 0.1, thresholds=(0.75, 0.25), before=True) == ["f", "-!", "-"]


# --- scores


def test_a_forecast_is_scored_when_the_next_value_comes() -> None:
    stage = Stage().values("A", 10, 11, 12)  # forecast 13 in [12, 14], scale 2
    assert stage.scores.position.tolist() == []
    stage.values("A", 16)
    assert stage.scores.position.tolist() == [0]
    assert stage.scores.error.tolist() == [1.5]  # |16 − 13| / 2
    assert stage.scores.naive.tolist() == [2.0]  # |16 − 12| / 2
    assert stage.scores.hit.tolist() == [False]


def test_scores_chain_through_a_batch() -> None:
    stage = Stage().values("A", 10, 11, 12, 14, 15)
    # 12 → 13 ± 1; 14 misses nothing: [12, 14] holds it. 14 → 16 ± 1: 15 is just within.
    assert stage.scores.position.tolist() == [3, 4]
    assert stage.scores.error.tolist() == [0.5, 0.5]
    assert stage.scores.naive.tolist() == [1.0, 0.5]
    assert stage.scores.hit.tolist() == [True, True]


def test_the_interval_holds_its_own_ends_and_nothing_beyond() -> None:
    for value, hit in ((12, True), (14, True), (11.999, False), (14.001, False)):
        assert Stage().values("A", 10, 11, 12).values("A", value).scores.hit.tolist() == [hit]


def test_one_stocks_forecast_is_not_scored_by_another() -> None:
    stage = Stage().values("A", 10, 11, 12)
    stage.values("B", 1, 2)
    assert stage.scores.position.tolist() == []


def test_late_ones_and_duplicates_settle_nothing() -> None:
    stage = Stage()
    stage.batch(*[event("A", value, value) for value in (10, 11, 12)])
    stage.batch(event("A", 12, 12), event("A", 50, 5))
    assert stage.scores.position.tolist() == []
    stage.batch(event("A", 13, 13))
    assert stage.scores.error.tolist() == [0.0]


def test_a_score_is_capped_and_never_overflows() -> None:
    stage = Stage().values("A", -1e308, -1e308, -1e308)
    stage.values("A", 1e308)
    assert stage.scores.error.tolist() == [SCORE_CAP]
    assert stage.scores.naive.tolist() == [SCORE_CAP]


# --- dead letters in a row


def run(reasons: str, *, before: int = 0, first: int = 0, limit: int = 3) -> tuple[int, int | None]:
    """`.` a good record, `x` a refused one, `l` a late one."""
    rejections = [
        Rejection(i, "late" if letter == "l" else "schema_invalid", "")
        for i, letter in enumerate(reasons)
        if letter in "xl"
    ]
    return consecutive_rejections(before, len(reasons), rejections, first, limit)


@pytest.mark.parametrize(
    ("reasons", "rejected"),
    [
        ("", 0),
        (".", 0),
        ("x", 1),
        ("xxx", 3),
        ("xx.", 0),
        ("xx.x", 1),
        ("xlx", 2),  # late ones neither add nor break
        ("llll", 0),
        ("xl", 1),
        ("l.", 0),
    ],
)
def test_refused_records_in_a_row_are_counted_late_ones_aside(reasons: str, rejected: int) -> None:
    assert run(reasons) == (rejected, None)


@pytest.mark.parametrize(
    ("reasons", "before", "rejected"), [("", 2, 2), ("l", 2, 2), (".", 2, 0), ("x", 2, 3), ("l.", 2, 0), (".x", 2, 1)]
)
def test_a_run_goes_on_from_batch_to_batch(reasons: str, before: int, rejected: int) -> None:
    assert run(reasons, before=before) == (rejected, None)


@pytest.mark.parametrize(
    ("reasons", "before", "position"),
    [
        ("xxxx", 0, 3),
        ("xxxxxx", 0, 3),
        ("xx.xxxlx", 0, 7),
        ("x", 3, 0),
        ("lx", 3, 1),
        ("lll", 3, None),
        (".xxx", 3, None),
    ],
)
def test_the_record_that_would_make_it_too_many_is_where_it_trips(
    reasons: str, before: int, position: int | None
) -> None:
    assert run(reasons, before=before) == (3, position)


@pytest.mark.parametrize(
    ("reasons", "first", "rejected"), [("xxxx", 4, 1), ("xxxx", 3, 2), ("x..x", 3, 2), ("xxx.", 3, 0), ("xxl", 2, 1)]
)
def test_what_is_restored_does_not_count(reasons: str, first: int, rejected: int) -> None:
    assert run(reasons, before=1, first=first) == (rejected, None)
