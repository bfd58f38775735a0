"""Applying: what Redis answers, and what becomes of a partition's changes. The store is doubles.MemoryStore."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from consumer import applier
from consumer.applier import Applied, Applier, new_generation
from consumer.events import EventDecoder
from consumer.metrics import Metrics
from consumer.partition import Partition
from consumer.stage import admit, judge
from model.predictor import Predictions
from state.errors import StoreRefused, Unavailable
from state.store import Broken, Outcome
from tests.unit.consumer.doubles import MemoryStore, event, meta, seated

ROW = np.zeros(0)
NO_PREDICTIONS = Predictions(ROW.astype(np.float32), ROW, ROW, ROW, ROW)


class System:
    """A partition in step with its store, as the engine would leave them."""

    def __init__(self, *, stored: bool = True) -> None:
        self.store, self.metrics, self.partition = MemoryStore(), Metrics(), seated()
        self.applier = Applier(self.store, self.metrics)  # type: ignore[arg-type]  # a store of our own
        if stored:
            self.store.metas[0] = meta(-1)
        else:
            self.partition.stored = None

    def fold(self, *values: tuple[str, float]) -> Partition:
        """These values are committed: in memory, not in the store."""
        first = self.partition.next_offset
        events = EventDecoder((), 99, 9).decode([event(s, v, first + n, first + n) for n, (s, v) in enumerate(values)])
        admitted = admit(self.partition.history, events, 100)
        ((entries, _, _),) = judge([admitted], [np.zeros(0, np.int64)], NO_PREDICTIONS, (0.6, 0.4))
        self.partition.history.fold(admitted.updates, entries)
        self.partition.delta = self.partition.history.delta(admitted.updates, entries)
        self.partition.next_offset += len(values)
        return self.partition

    def apply(self) -> Applied:
        return self.applier.apply([self.partition])[0]

    @property
    def repaired(self) -> float | None:
        return self.metrics.registry.get_sample_value("downtick_rings_repaired_total")


def test_a_healthy_write_leaves_nothing_pending() -> None:
    system = System()
    partition = system.fold(("A", 1), ("B", 2), ("A", 3))
    partition.rejected, partition.conflicts = 7, 2
    assert not partition.applied
    assert system.apply() is Applied.DONE
    assert system.store.values() == {"A": [1, 3], "B": [2]}
    assert system.store.metas[0] == meta(2, rejected=7)
    assert partition.applied
    assert (partition.stored, partition.delta, partition.conflicts) == (meta(2, rejected=7), None, 0)


def test_records_without_updates_move_the_watermark_alone() -> None:
    system = System()
    system.partition.next_offset = 5
    assert system.apply() is Applied.DONE
    assert system.store.metas[0] == meta(4)


def test_redis_away_keeps_everything_pending_for_the_same_call() -> None:
    system = System()
    partition = system.fold(("A", 1))
    system.store.script = [Unavailable("connection refused")]
    pending, before = partition.delta, partition.stored
    with pytest.raises(Unavailable, match="connection refused"):
        system.apply()
    assert partition.delta is pending
    assert partition.stored is before
    assert not partition.applied
    assert system.apply() is Applied.DONE
    assert system.store.values() == {"A": [1]}


def test_a_write_whose_answer_was_lost_is_not_done_twice() -> None:
    system = System()
    partition = system.fold(("A", 1))
    pending, before = partition.delta, partition.stored
    assert system.apply() is Applied.DONE
    partition.delta, partition.stored = pending, before  # as if the answer had not come
    assert system.apply() is Applied.DONE
    assert system.store.values() == {"A": [1]}


def test_a_damaged_ring_is_rewritten_from_memory_and_counted() -> None:
    system = System()
    system.fold(("A", 1), ("B", 5), ("A", 2))
    system.apply()
    del system.store.rings[0, "g1"]["A"]
    system.fold(("B", 6), ("A", 3), ("C", 9))
    assert system.apply() is Applied.DONE
    assert system.store.values() == {"B": [5, 6], "C": [9], "A": [1, 2, 3]}
    assert system.store.metas[0] == meta(5)
    assert system.repaired == 1
    system.fold(("A", 4))  # and goes on from there
    system.apply()
    assert system.store.values()["A"] == [1, 2, 3, 4]


def test_a_rewritten_ring_holds_what_memory_holds_and_goes_on_numbered_from_one() -> None:
    system = System()
    system.fold(*[("A", value) for value in (1, 2, 3, 4, 5)])
    system.apply()
    system.store.rings[0, "g1"]["A"].pop()
    system.fold(("A", 6))
    assert system.apply() is Applied.DONE
    assert system.store.values() == {"A": [4, 5, 6]}  # the model reaches three back: memory has no more
    assert [int(record["index"]) for record in system.store.rings[0, "g1"]["A"]] == [1, 2, 3]


def test_damage_found_call_after_call_ends_in_a_new_generation() -> None:
    system = System()
    system.fold(("A", 1), ("B", 2), ("C", 3), ("D", 4))
    system.store.script = [Broken([0]), Broken([0]), Broken([0])]
    assert system.apply() is Applied.DONE
    generation = system.store.metas[0].generation
    assert generation != "g1"
    assert system.store.values() == {"A": [1], "B": [2], "C": [3], "D": [4]}
    assert system.partition.target == system.partition.stored == meta(3, generation=generation)
    assert system.partition.applied


def test_a_lost_set_of_stocks_is_written_anew_under_a_new_generation() -> None:
    system = System()
    system.fold(("A", 1), ("B", 2))
    system.apply()
    system.fold(("A", 3))
    system.store.script = [Broken([], stocks_lost=True)]
    assert system.apply() is Applied.DONE
    assert system.store.metas[0].generation != "g1"
    assert system.store.values() == {"A": [1, 3], "B": [2]}
    assert system.partition.applied


def test_a_redis_that_lost_its_data_gets_all_of_memory_under_a_new_generation() -> None:
    system = System()
    system.fold(("A", 1), ("B", 2))
    system.apply()
    system.store.metas.clear()
    system.store.rings.clear()
    partition = system.fold(("A", 3))
    partition.rejected = 4
    assert system.apply() is Applied.DONE
    generation = system.store.metas[0].generation
    assert generation != "g1"
    assert system.store.metas[0] == meta(2, generation=generation, rejected=4)
    assert system.store.values() == {"A": [1, 3], "B": [2]}
    system.fold(("A", 4), ("C", 9))
    assert system.apply() is Applied.DONE
    assert system.store.metas[0].generation == generation
    assert system.store.values() == {"A": [1, 3, 4], "B": [2], "C": [9]}


def test_a_whole_generation_is_written_in_chunks_with_the_meta_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applier, "CHUNK", 2)
    system = System()
    system.fold(*[(f"S{n}", n) for n in range(5)])
    system.store.metas.clear()
    # the first write finds no meta; three chunks are staged; then the meta cannot be written
    system.store.script = [Outcome.CONFLICT]
    original, steps = system.store._put, []

    def put(partition, expect, generation, delta, then):  # type: ignore[no-untyped-def]  # passes all of it on
        steps.append((len(delta.stocks), then is not None))
        return original(partition, expect, generation, delta, then)

    system.store._put = put  # type: ignore[method-assign]
    assert system.apply() is Applied.DONE
    assert steps == [(2, False), (2, False), (1, False), (0, True)]
    assert system.store.values() == {f"S{n}": [n] for n in range(5)}


def test_redis_away_between_chunks_leaves_readers_nothing_and_begins_again() -> None:
    system = System()
    system.fold(("A", 1))
    system.store.metas.clear()
    system.store.script = [Outcome.CONFLICT, Unavailable("away")]
    with pytest.raises(Unavailable):
        system.apply()
    assert system.store.metas == {}
    assert not system.partition.applied
    assert system.apply() is Applied.DONE
    assert system.store.values() == {"A": [1]}


def test_somebody_elses_meta_is_a_conflict_and_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    system = System()
    system.fold(("A", 1))
    system.store.metas[0] = theirs = meta(41, generation="theirs")
    with caplog.at_level(logging.WARNING):
        assert system.apply() is Applied.CONFLICT
    assert system.store.metas[0] == theirs
    assert "watermark 41 of generation theirs in Redis, expected -1 of g1" in caplog.text


def test_a_redis_put_back_from_a_snapshot_is_a_conflict() -> None:
    system = System()
    system.fold(("A", 1))
    system.apply()
    system.store.metas[0] = meta(-1)
    system.fold(("A", 2))
    assert system.apply() is Applied.CONFLICT


def test_a_first_write_that_meets_a_meta_is_a_conflict() -> None:
    system = System(stored=False)
    system.store.metas[0] = meta(41, generation="theirs")
    system.fold(("A", 1))
    assert system.apply() is Applied.CONFLICT


def test_a_first_write_makes_the_meta() -> None:
    system = System(stored=False)
    system.fold(("A", 1))
    assert system.apply() is Applied.DONE
    assert system.store.metas[0] == meta(0)


def test_another_writer_while_all_is_written_anew_is_a_conflict() -> None:
    system = System()
    system.fold(("A", 1))
    for at in (0, 1):  # at the chunk, at the meta
        system.store.metas.clear()
        system.store.script = [Outcome.CONFLICT] * (1 + 1)
        if at:
            system.store.script = [Outcome.CONFLICT, Outcome.APPLIED, Outcome.CONFLICT]
        assert system.apply() is Applied.CONFLICT
        assert not system.partition.applied


def test_a_refusal_goes_through() -> None:
    system = System()
    system.fold(("A", 1))
    system.store.script = [StoreRefused("NOPERM")]
    with pytest.raises(StoreRefused, match="NOPERM"):
        system.apply()


def test_a_new_generation_replaces_the_one_that_is_stored() -> None:
    system = System()
    system.fold(("A", 1))
    system.apply()
    # seated anew: the target is another generation, nothing is folded yet, and the watermark stays where it is
    system.partition.target = replace(system.partition.target, generation="g2")
    assert not system.partition.applied
    assert system.apply() is Applied.DONE
    assert system.store.metas[0] == meta(0, generation="g2")
    assert system.partition.applied


def test_no_two_generations_have_the_same_name() -> None:
    names = {new_generation() for _ in range(1_000)}
    assert len(names) == 1_000
    assert all(name.isalnum() for name in names)


def test_a_rewrite_that_is_cut_short_goes_on_under_the_same_name() -> None:
    system = System()
    system.fold(("A", 1), ("B", 2))
    system.apply()
    system.store.metas.clear()  # Redis lost everything
    system.store.rings.clear()
    system.fold(("A", 3))
    for _ in range(3):
        system.store.script = [Outcome.CONFLICT, Unavailable("away")]  # the write, then the first chunk
        with pytest.raises(Unavailable):
            system.apply()
    name = system.partition.staging
    assert system.apply() is Applied.DONE
    assert system.store.metas[0].generation == name
    assert {generation for _, generation in system.store.rings} == {name}
    assert system.partition.staging == ""


def test_one_partitions_trouble_does_not_undo_what_another_has_written() -> None:
    one, two = System(), seated(1)
    one.store.metas[1] = two.stored
    partition = one.fold(("A", 1))
    two.next_offset = 1
    one.store.script = [Outcome.CONFLICT]
    outcomes = one.applier.apply([partition, two])
    assert outcomes == [Applied.CONFLICT, Applied.DONE]
    assert two.applied
