"""Rounds of the engine when things go wrong. Kafka and Redis are scripted here; the real ones have tests/faults."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from consumer import engine as engine_module
from consumer import upkeep as upkeep_module
from consumer.applier import Applier
from consumer.batch import Stager
from consumer.engine import CONFLICTS, FENCES, HANGING_SECONDS, Engine, EngineFailed
from consumer.events import EventDecoder
from consumer.metrics import Metrics
from consumer.models import Change as ModelChange
from consumer.outputs import Outgoing
from consumer.partition import Standing
from consumer.scoring import Scoring
from consumer.seater import Seater, TopicIdentity
from consumer.seating import Policy
from consumer.sink import Fenced, OutcomeUnknown, SinkAway, TransactionAborted
from consumer.source import Change, SourceAway, SourceFatal, SourceLost, Taken
from consumer.stop import Stop
from model.predictor import Predictions
from state.errors import Unavailable
from state.store import Outcome
from tests.unit.consumer.doubles import BAD, MemoryStore, Message, SlopeModel, event, meta


class Kafka:
    """A broker with one input topic: the engine's `Source` and `Sink` in one, and the hand that makes them fail."""

    topic, max_poll_interval = "prices", 300.0

    def __init__(self, partitions: int) -> None:
        self.log: dict[int, list[Message]] = {number: [] for number in range(partitions)}
        self.log_start = dict.fromkeys(self.log, 0)
        self.ends: dict[int, int] = {}  # of logs that end in control records
        self.offsets: dict[int, int] = {}  # committed
        self.published: list[tuple[str, bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = []
        self.changes: deque[Change] = deque()
        self.member, self.refused = "member-1", 0
        self.away = ""  # why no question is answered
        self.hidden = self.boundless = ""  # why that of committed offsets is not; that of the log's ends
        self.positions: dict[int, int] = {}
        self.held: set[int] = set()
        self.during_take: list[Callable[[Taken], None]] = []  # what the next rounds meet
        self.endings: list[str] = []  # of the next transactions: aborted, committed unknown, lost unknown, fenced
        self.opens: list[Exception] = []
        self.ready, self.closed = False, 0
        self._open: list[tuple[str, bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = []
        self._sent: dict[int, int] = {}
        self._fetched: dict[int, int] = {}  # log ends, as fetches tell them

    # the source

    def join(self) -> None:
        self.assign(*self.log)

    def assign(self, *partitions: int) -> None:
        self.held.update(partitions)
        self.changes.append(Change("assigned", partitions))

    def take(self, max_records: int, *_: float) -> Taken:
        taken = Taken()
        for number in self.log.keys() - self.held:
            self._fetched[number] = self.end(number)
            found = [m for m in self.log[number] if m.offset() >= self.positions[number]][:max_records]
            if found:
                taken.records[number] = list(found)
                self.positions[number] = found[-1].offset() + 1
            elif number in self.ends:
                taken.ends[number] = self.ends[number]
        if self.during_take:
            self.during_take.pop(0)(taken)
        return taken

    def _ask(self) -> None:
        if self.away:
            raise SourceAway(self.away)

    def committed(self, partitions: Iterable[int], _: float = 0) -> dict[int, int | None]:
        self._ask()
        if self.hidden:
            raise SourceAway(self.hidden)
        return {number: self.offsets.get(number) for number in partitions}

    def bounds(self, partition: int) -> tuple[int, int]:
        self._ask()
        if self.boundless:
            raise SourceAway(self.boundless)
        return self.log_start[partition], self.end(partition)

    def end(self, partition: int) -> int:
        log = self.log[partition]
        return self.ends.get(partition, log[-1].offset() + 1 if log else 0)

    def known_end(self, partition: int) -> int | None:
        return self._fetched.get(partition)

    def trouble(self) -> str:
        return self.away

    def seek(self, partition: int, offset: int, _: Mapping[int, int]) -> None:
        self.positions[partition] = offset
        self.held.discard(partition)

    def ask_ends(self, partitions: Iterable[int]) -> dict[int, int]:
        return {number: self.end(number) for number in partitions}

    def hold(self, partitions: Iterable[int]) -> None:
        self.held.update(partitions)

    def group_metadata(self) -> object | None:
        return self.member or None

    def member_id(self) -> str:
        return self.member

    # the sink

    def open(self) -> None:
        if self.opens:
            raise self.opens.pop(0)
        self.ready = True

    def begin(self) -> None:
        assert self.ready
        self._open, self._sent = [], {}

    def produce(self, topic: str, outgoing: Iterable[Outgoing]) -> None:
        self._open += [(topic, key, value, headers or []) for key, value, headers in outgoing]

    def send_offsets(self, topic: str, offsets: Mapping[int, int], group_metadata: object) -> None:
        assert topic == "prices"
        self.refused += group_metadata != self.member
        if group_metadata != self.member:
            raise TransactionAborted("of an old generation")  # the fence
        self._sent = dict(offsets)

    def commit(self) -> None:
        ending = self.endings.pop(0) if self.endings else "committed"
        if ending.startswith("committed"):
            self.published += self._open
            self.offsets |= self._sent
        if ending == "aborted":
            raise TransactionAborted("a broker moved")
        if ending.endswith("unknown"):
            self.ready = False
            raise OutcomeUnknown("no answer")
        if ending == "fenced":
            self.ready = False
            raise Fenced("a newer producer has our name")

    def close(self) -> None:
        self.closed += 1


class System:
    """An engine on scripted servers, driven round by round."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        limit: int = 1_000,
        max_events: int = 1_000,
        reach: int = SlopeModel.reach,
        is_member: Callable[[], bool] | None = None,
    ) -> None:
        self.kafka, self.store, self.metrics, self.namesake = Kafka(partitions), MemoryStore(), Metrics(), False
        self.stop = Stop()
        self.models: deque[ModelChange] = deque()  # ready to be taken over
        model = SlopeModel()
        self.engine = Engine(
            source=self.kafka,  # type: ignore[arg-type]  # ours, as are the sink, the store and the model
            sink=self.kafka,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            stager=Stager(EventDecoder((), 200, 86_400), model, self.metrics, 100, limit),  # type: ignore[arg-type]
            seater=Seater(
                self.kafka,  # type: ignore[arg-type]
                self.store,  # type: ignore[arg-type]
                model,  # type: ignore[arg-type]
                self.metrics,
                identify=lambda: TopicIdentity("cluster", "topic-id"),
                reach=reach,
                depth=8,
                policy=Policy(),
            ),
            applier=Applier(self.store, self.metrics),  # type: ignore[arg-type]
            scoring=Scoring(model, self.metrics, reach),  # type: ignore[arg-type]
            models=lambda: self.models.popleft() if self.models else None,
            metrics=self.metrics,
            output_topic="predictions",
            dead_letter_topic="dead",
            max_events=max_events,
            max_wait=0.0,
            live_namesake=lambda: self.namesake,
            is_member=is_member,
            stop=self.stop,
            version="0.1.0",
        )

    def start(self) -> "System":
        self.engine._open_first()
        self.kafka.join()
        return self.rounds(2)

    def rounds(self, count: int = 1) -> "System":
        for _ in range(count):
            self.engine._round()
        return self

    def write(self, *values: float | bytes, partition: int = 0, stock: str = "A") -> "System":
        """Put values of one stock, or other bytes, at the log's end."""
        log = self.kafka.log[partition]
        for value in values:
            at = self.kafka.end(partition)
            message = Message(stock.encode(), value, at) if isinstance(value, bytes) else event(stock, value, at, at)
            log.append(message)
        return self

    def predicted(self) -> list[tuple[int, int]]:
        """Partition and offset of each published prediction, in order."""
        found = []
        for topic, _, value, _ in self.kafka.published:
            if topic == "predictions":
                source = json.loads(value or b"")["source"]
                found.append((source["partition"], source["offset"]))
        return found

    def told(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(f"downtick_{name}", labels)
        assert found is not None, (name, labels)
        return found

    def in_step(self, partition: int = 0) -> bool:
        """All of the log is handled, and Redis holds it."""
        at = self.kafka.end(partition)
        stored = self.store.metas.get(partition)
        return self.kafka.offsets.get(partition) == at and stored is not None and stored.watermark == at - 1


@pytest.fixture(autouse=True)
def _look_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(upkeep_module, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "PLACE_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "LONGEST_PAUSE", 0.0)


@pytest.fixture
def system() -> Iterator[System]:
    """Joined, seated, with two values of A: the next one is the first to be predicted."""
    system = System().start().write(1, 2).rounds()
    assert system.in_step()
    assert system.engine.troubles == ()
    yield system
    assert len(set(system.predicted())) == len(system.predicted())  # whatever the test did: nothing twice


def test_a_batch_goes_to_kafka_and_then_to_redis(system: System) -> None:
    system.write(3, BAD, 4).rounds()
    assert system.predicted() == [(0, 2), (0, 4)]
    assert [(topic, key, value) for topic, key, value, _ in system.kafka.published if topic == "dead"] == [
        ("dead", b"A", BAD)
    ]
    assert system.in_step()
    assert system.store.values() == {"A": [1, 2, 3, 4]}
    assert system.told("transactions_total", outcome="committed") == 3  # the start, 1 2, and this one
    assert system.told("batch_events_sum") == 5


def test_a_first_start_commits_where_it_starts_so_that_it_happens_once() -> None:
    system = System()
    system.kafka.log_start[0] = 7
    system.write()
    system.kafka.ends[0] = 7
    system.start()
    assert system.kafka.offsets == {0: 7}
    assert system.store.metas[0].watermark == 6
    assert system.engine.troubles == ()


def test_an_aborted_transaction_is_done_again_and_nothing_had_moved(system: System) -> None:
    system.kafka.endings = ["aborted"]
    system.write(3).rounds()
    assert (system.predicted(), system.store.values(), system.kafka.offsets) == ([], {"A": [1, 2]}, {0: 2})
    assert system.told("events_consumed_total") == 2
    system.rounds()
    assert system.predicted() == [(0, 2)]
    assert system.in_step()
    assert system.told("transactions_total", outcome="aborted") == 1
    assert system.told("events_consumed_total") == 3


def test_an_unknown_outcome_that_was_a_commit_is_taken_for_one(system: System) -> None:
    system.kafka.endings = ["committed unknown"]
    system.write(3).rounds()
    assert system.engine.troubles[0].startswith("the outcome of a transaction is unknown")
    system.write(4).rounds(2)
    assert system.predicted() == [(0, 2), (0, 3)]
    assert system.in_step()
    assert system.told("transactions_total", outcome="unknown") == 1
    assert system.told("events_consumed_total") == 4
    assert system.engine.troubles == ()


def test_an_unknown_outcome_that_was_none_is_done_again(system: System) -> None:
    system.kafka.endings = ["lost unknown"]
    system.write(3).rounds()
    assert system.predicted() == []
    system.rounds(2)
    assert system.predicted() == [(0, 2)]
    assert system.in_step()


def test_an_offset_that_is_not_ours_seats_the_partition_anew(system: System) -> None:
    system.kafka.endings = ["lost unknown"]
    system.write(3, 4).rounds()
    system.kafka.offsets[0] = 3  # somebody else has handled one of the two
    system.rounds(3)
    assert system.predicted() == [(0, 3)]  # with a window that knows the other one
    assert system.store.values() == {"A": [1, 2, 3, 4]}
    assert system.in_step()


def test_while_an_outcome_is_unknown_nothing_is_taken(system: System) -> None:
    system.kafka.endings = ["committed unknown"]
    system.write(3).rounds()
    system.kafka.away = "timed out"
    system.write(4).rounds(3)
    assert system.predicted() == [(0, 2)]
    assert system.kafka.held == {0}
    assert "the outcome of a transaction is unknown: timed out" in system.engine.troubles
    system.kafka.away = ""
    system.rounds(2)
    assert system.predicted() == [(0, 2), (0, 3)]


def test_without_a_producer_nothing_is_taken_and_polling_goes_on(system: System) -> None:
    system.kafka.endings = ["lost unknown"]
    system.write(3).rounds()
    system.kafka.opens = [SinkAway("no coordinator"), SinkAway("no coordinator")]
    system.rounds(2)
    assert "no transaction coordinator: no coordinator" in system.engine.troubles
    assert system.predicted() == []
    system.rounds(2)
    assert system.predicted() == [(0, 2)]


def test_redis_away_after_a_commit_keeps_one_batch_and_takes_no_other(system: System) -> None:
    system.store.away = "connection refused"
    system.write(3).rounds()
    assert system.predicted() == [(0, 2)]  # Kafka did not wait
    system.write(4).rounds(3)
    assert system.predicted() == [(0, 2)]
    assert system.engine.troubles[0] == "Redis does not take what was committed: connection refused"
    assert system.told("redis_errors_total", operation="write") == 4
    system.store.away = ""
    system.rounds(2)
    assert system.predicted() == [(0, 2), (0, 3)]
    assert system.in_step()
    assert system.engine.troubles == ()


def test_redis_away_while_idle_is_noticed(system: System) -> None:
    system.store.away = "loading"
    system.rounds()
    assert system.engine.troubles == ("Redis does not answer: loading",)
    assert system.told("redis_errors_total", operation="check") == 1


def test_redis_away_while_seating_waits_and_says_so() -> None:
    system = System().write(1, 2, 3)
    system.store.away = "connection refused"
    system.start()
    assert system.engine.partitions[0].standing is Standing.WAITING
    assert system.told("redis_errors_total", operation="load") == 2
    assert "partition 0 is waiting to be seated: connection refused" in system.engine.troubles
    system.store.away = ""
    system.rounds(2)
    assert system.predicted() == [(0, 2)]


def test_kafka_away_while_seating_waits() -> None:
    system = System().write(1, 2, 3)
    system.kafka.away = "all brokers down"
    system.start()
    assert system.engine.troubles[0] == "partitions cannot be seated: all brokers down"
    system.kafka.away = ""
    system.rounds(2)
    assert system.predicted() == [(0, 2)]


def test_offsets_of_a_former_place_in_the_group_are_refused_once_and_none_are_sent_without_one(system: System) -> None:
    system.kafka.member = ""
    system.write(3).rounds(3)
    assert system.kafka.refused == 1  # by what it was told when it had one; then it knows
    assert system.predicted() == []
    assert system.kafka.offsets == {0: 2}
    system.kafka.member = "member-2"
    system.rounds()
    assert system.predicted() == [(0, 2)]


def test_records_of_a_partition_that_leaves_in_the_same_round_are_dropped(system: System) -> None:
    system.kafka.during_take = [lambda _: system.kafka.changes.append(Change("revoked", (0,)))]
    system.write(3).rounds()
    assert system.predicted() == []
    assert system.kafka.offsets == {0: 2}
    assert (system.engine.partitions, system.told("assigned_partitions")) == ({}, 0)
    assert system.told("rebalances_total", event="revoked") == 1


def test_a_partition_lost_and_regained_in_one_round_begins_where_the_group_stands(system: System) -> None:
    def regain(_: Taken) -> None:
        system.kafka.changes.append(Change("lost", (0,)))
        system.kafka.assign(0)

    system.kafka.during_take = [regain]
    system.write(3).rounds()
    assert system.predicted() == []
    system.rounds()
    assert system.predicted() == [(0, 2)]
    assert (system.told("rebalances_total", event="lost"), system.told("rebalances_total", event="assigned")) == (1, 2)
    assert system.in_step()


def test_a_partition_that_left_while_its_outcome_was_unknown_is_not_touched() -> None:
    system = System(partitions=2).start()
    system.write(1, 2).write(1, 2, partition=1, stock="B").rounds()
    system.kafka.endings = ["committed unknown"]
    system.write(3).write(3, partition=1, stock="B").rounds()
    system.kafka.changes.append(Change("revoked", (1,)))
    system.kafka.opens = [SinkAway("no coordinator")]
    system.rounds(3)
    assert sorted(system.predicted()) == [(0, 2), (1, 2)]
    assert system.in_step(0)
    assert system.store.metas[1].watermark == 1  # the next owner catches up


def test_an_exception_out_of_a_poll_loses_nothing(system: System) -> None:
    def lose(_: Taken) -> None:
        raise SourceLost("callback raised")

    system.kafka.during_take = [lose]
    system.write(3, 4).rounds()
    assert system.predicted() == []
    system.rounds()
    assert system.predicted() == [(0, 2), (0, 3)]


def test_a_consumer_of_no_more_use_ends_the_worker(system: System) -> None:
    def die(_: Taken) -> None:
        raise SourceFatal("group instance id was fenced")

    system.kafka.during_take = [die]
    with pytest.raises(EngineFailed, match="group instance id was fenced"):
        system.rounds()


def test_records_before_the_next_offset_are_not_taken_twice(system: System) -> None:
    system.kafka.positions[0] = 0  # the client hands out what was handled already
    system.write(3).rounds()
    assert system.predicted() == [(0, 2)]
    assert system.told("events_consumed_total") == 3


def test_a_next_offset_that_left_the_log_stops_the_partition_and_says_so(system: System) -> None:
    system.kafka.log[0] = []
    system.kafka.log_start[0] = system.kafka.ends[0] = 50
    system.kafka.during_take = [lambda taken: taken.displaced.update({0: system.engine.partitions[0].next_offset})]
    system.rounds()
    assert system.engine.partitions[0].standing is Standing.STOPPED
    assert (
        "partition 0 is stopped: the group's next offset 2 lies outside the log [50, 50)" in system.engine.troubles[0]
    )


def test_a_conflict_seats_the_partition_anew_and_tells_nothing_twice(system: System) -> None:
    system.write(3).rounds()
    system.store.metas[0] = meta(0, generation=system.store.metas[0].generation)  # a snapshot from before
    rings = system.store.rings[0, system.store.metas[0].generation]
    rings["A"] = rings["A"][:1]
    system.write(4).rounds(4)
    assert system.predicted() == [(0, 2), (0, 3)]
    assert system.in_step()
    assert system.store.values() == {"A": [1, 2, 3, 4]}


def test_five_conflicts_in_a_row_end_the_worker(system: System) -> None:
    system.store.script = [Outcome.CONFLICT] * CONFLICTS

    def go_on() -> None:
        for value in range(3, 100):
            system.write(value).rounds()

    with pytest.raises(EngineFailed, match="changed under us 5 times in a row"):
        go_on()


def test_conflicts_that_are_not_in_a_row_do_not_add_up(system: System) -> None:
    for value in range(3, 3 + 2 * CONFLICTS):
        system.store.script = [Outcome.CONFLICT]
        system.write(value).rounds(3)
    assert system.in_step()


def test_a_lost_redis_is_written_again_and_the_old_generation_is_unlinked(system: System) -> None:
    before = system.store.metas[0].generation
    system.store.metas.clear()
    system.write(3).rounds(3)
    assert system.store.values() == {"A": [1, 2, 3]}
    assert system.store.unlinked == [before]


def test_fenced_by_a_live_namesake_the_worker_ends(system: System) -> None:
    system.kafka.endings = ["fenced"]
    system.namesake = True
    system.write(3)
    with pytest.raises(EngineFailed, match="give each worker its own `worker` setting"):
        system.rounds()


def test_fenced_by_nobody_the_worker_goes_on_but_not_for_ever(system: System) -> None:
    system.kafka.endings = ["fenced"] * FENCES
    system.write(3).rounds(FENCES - 1)
    assert system.predicted() == []
    with pytest.raises(EngineFailed, match="another live worker"):
        system.rounds()


def test_a_restore_folds_silently_and_is_not_ready_meanwhile() -> None:
    system = System(max_events=2).write(1, 2, 3, 4, 5)
    system.kafka.offsets[0] = 4
    system.start()
    assert system.engine.troubles == ("partition 0 restores its histories, 2 records to go",)
    assert system.told("restore_remaining_records") == 2
    assert system.kafka.offsets == {0: 4}
    system.rounds(2)
    assert system.predicted() == [(0, 4)]
    assert system.told("events_consumed_total") == 1
    assert system.told("restore_remaining_records") == 0
    assert system.engine.troubles == ()
    assert system.store.values() == {"A": [1, 2, 3, 4, 5]}


def test_a_restore_ends_at_the_logs_end_where_only_control_records_are_left() -> None:
    system = System().write(1, 2)
    system.kafka.offsets[0] = 4  # 2 and 3 are control records
    system.kafka.ends[0] = 4
    system.start()
    system.rounds(2)
    assert system.engine.troubles == ()
    assert system.engine.partitions[0].next_offset == 4
    assert system.store.metas[0].watermark == 3


def test_the_breaker_pauses_one_partition_and_an_operator_resumes_it() -> None:
    system = System(partitions=2, limit=2).start()
    system.write(BAD, BAD, BAD, 1).write(1, 2, 3, partition=1, stock="B").rounds(2)
    assert system.predicted() == [(1, 2)]
    assert system.kafka.offsets == {0: 2, 1: 3}
    assert system.told("breaker_open", partition="0") == 1
    assert system.told("breaker_open", partition="1") == 0
    assert system.engine.troubles == ("partition 0 is paused: too many dead letters in a row",)
    system.rounds(3)
    assert system.kafka.offsets[0] == 2
    system.store.resumes.add(0)
    system.rounds(3)
    assert system.kafka.offsets[0] == 4
    assert system.told("breaker_open", partition="0") == 0
    assert system.told("dead_letters_total", reason="json_invalid") == 3
    assert system.engine.troubles == ()


def test_an_open_breaker_outlives_the_worker() -> None:
    system = System(limit=2).start()
    system.write(BAD, BAD, BAD).rounds(2)
    again = System(limit=2)
    again.kafka.log, again.kafka.offsets, again.store = system.kafka.log, system.kafka.offsets, system.store
    again.engine._store = again.engine._seater._store = again.engine._applier._store = system.store  # type: ignore[assignment]
    again.start().rounds()
    assert again.kafka.published == []
    assert again.told("breaker_open", partition="0") == 1


def test_a_resume_waits_until_redis_holds_what_it_ends() -> None:
    system = System(limit=2).start()
    system.store.script = [Unavailable("no answer")] * 3
    system.write(BAD, BAD, BAD).rounds()
    system.store.resumes.add(0)
    system.rounds(2)
    assert system.store.resumes == {0}
    system.rounds(4)
    assert (system.store.resumes, system.kafka.offsets) == (set(), {0: 3})


def test_a_resume_is_in_redis_before_the_next_record_is_taken() -> None:
    system = System(limit=2).start()
    system.write(BAD, BAD, BAD).rounds(2)
    assert (system.store.metas[0].watermark, system.store.metas[0].rejected) == (1, 2)
    system.store.resumes.add(0)
    system.rounds()

    def die(_: Taken) -> None:
        raise SourceFatal("the worker ends here")

    system.kafka.during_take = [die]
    with pytest.raises(EngineFailed):
        system.rounds()
    assert (system.store.metas[0].watermark, system.store.metas[0].rejected) == (1, 0)


def test_a_restore_ends_before_control_records_that_follow_the_groups_offset() -> None:
    system = System().write(1, 2)
    system.kafka.offsets[0] = 4  # 2 and 3 are control records, and so are 4 and 5
    system.kafka.ends[0] = 6
    system.start().rounds(2)
    assert system.engine.partitions[0].next_offset == 4
    assert system.kafka.offsets == {0: 4}
    assert system.told("consumer_lag_records", partition="0") == 0
    assert system.engine.troubles == ()


def test_lag_and_stocks_are_shown(system: System) -> None:
    system.write(9, 5, 1).write(7, stock="B").rounds()
    assert system.told("stocks_tracked") == 2
    assert system.told("falling_stocks") == 1
    assert system.told("consumer_lag_records", partition="0") == 0
    system.store.away = "down"
    system.write(1, 1, 1).rounds()
    system.write(1, 1).rounds()
    assert system.told("consumer_lag_records", partition="0") == 2


def test_a_member_without_its_first_assignment_is_not_ready() -> None:
    system = System()
    system.engine._open_first()
    system.rounds(2)  # it has a member id, and no word about partitions yet
    assert system.engine.troubles == ("not yet a member of the group",)


def test_a_member_that_gets_no_partition_is_ready() -> None:
    system = System()
    system.engine._open_first()
    system.kafka.assign()
    system.rounds()
    assert system.engine.troubles == ()
    assert system.told("assigned_partitions") == 0


def test_a_worker_that_lost_its_place_is_not_ready_before_it_has_one_again(system: System) -> None:
    system.kafka.changes.append(Change("lost", (0,)))
    system.rounds(2)
    assert system.engine.troubles == ("it lost its place in the group",)
    system.kafka.assign()
    system.rounds()
    assert system.engine.troubles == ()


def test_a_standby_that_lost_its_place_hears_of_no_loss_and_is_not_ready_all_the_same() -> None:
    system = System()
    system.engine._open_first()
    system.kafka.assign()
    assert system.rounds().engine.troubles == ()
    member, system.kafka.member = system.kafka.member, ""
    assert system.rounds().engine.troubles == ("it lost its place in the group",)
    system.kafka.member = member
    assert system.rounds(3).engine.troubles == ("it lost its place in the group",)  # it asks to come in
    system.kafka.assign()
    assert system.rounds().engine.troubles == ()


def test_where_a_standby_hears_of_nothing_the_group_is_asked_and_asked_again_once_its_id_is_another() -> None:
    listed: list[object] = [SourceAway("no answer"), False, True]

    def is_member() -> bool:
        answer = listed.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    system = System(is_member=is_member)
    system.engine._open_first()
    for _ in range(2):
        assert system.rounds().engine.troubles == ("not yet a member of the group",)
    assert system.rounds(3).engine.troubles == ()  # and not asked any more
    listed += [False, True]
    system.kafka.member = "another"
    assert system.rounds().engine.troubles == ("it lost its place in the group",)
    assert system.rounds(3).engine.troubles == ()
    assert not listed


# --- its life


def test_run_joins_works_until_asked_to_stop_and_lets_everything_go() -> None:
    system = System().write(1, 2, 3)
    assert system.engine.troubles == ("not started",)

    def stop(_: Taken) -> None:
        system.stop.ask()

    system.kafka.during_take = [lambda _: None, lambda _: None, stop]
    system.engine.run()
    assert system.predicted() == [(0, 2)]  # the batch in hand is finished
    assert system.in_step()
    assert (system.kafka.closed, system.store.closed) == (2, True)  # source and sink
    assert system.engine.troubles == ("stopped",)


def test_asked_to_stop_while_redis_was_away_it_gets_a_last_chance() -> None:
    system = System().write(1, 2, 3)

    def stop(_: Taken) -> None:
        system.stop.ask()
        system.store.script = [Unavailable("busy"), Unavailable("busy")]

    system.kafka.during_take = [lambda _: None, lambda _: None, stop]
    system.engine.run()
    assert system.in_step()


def test_asked_to_stop_when_redis_has_lost_its_data_it_writes_all_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.applier.CHUNK", 1)
    system = System().write(1, 2, 3).write(4, stock="B")

    def stop(_: Taken) -> None:
        system.stop.ask()
        system.store.metas.clear()

    system.kafka.during_take = [*[lambda _: None] * 2, lambda _: system.write(5), stop]
    system.engine.run()
    assert system.store.values() == {"A": [2, 3, 5], "B": [4]}  # as far as the model reaches back


def test_a_stop_does_not_wait_for_a_rewrite_longer_than_its_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("consumer.applier.CHUNK", 1)
    system = System().write(1, 2, 3)
    for stock in "BCDEFGH":
        system.write(4, stock=stock)
    chunks = 0

    def chunk(*_: object) -> float:
        nonlocal chunks
        chunks += 1
        return 1.0 if chunks <= 4 else 0.0

    def stop(_: Taken) -> None:
        system.stop.ask()
        system.store.metas.clear()
        monkeypatch.setattr(system.stop, "left", chunk)

    system.kafka.during_take = [*[lambda _: None] * 2, lambda _: system.write(5), stop]
    system.engine.run()
    assert 0 not in system.store.metas  # it ends the rewrite: nobody reads half of one
    assert "left to the next worker" in caplog.text


def test_the_former_self_is_fenced_before_the_group_is_joined() -> None:
    system = System()
    system.kafka.opens = [SinkAway("no coordinator yet")]
    order: list[str] = []
    original = system.kafka.open
    system.kafka.open = lambda: (order.append("open"), original())[1]  # type: ignore[method-assign, func-returns-value]
    join = system.kafka.join
    system.kafka.join = lambda: (order.append("join"), join())[1]  # type: ignore[method-assign, func-returns-value]
    system.kafka.during_take = [lambda _: system.stop.ask()]
    system.engine.run()
    assert order == ["open", "open", "join"]


def test_a_bug_lets_everything_go_and_is_not_hidden() -> None:
    system = System()

    def bug(_: Taken) -> None:
        raise ZeroDivisionError

    system.kafka.during_take = [bug]
    with pytest.raises(ZeroDivisionError):
        system.engine.run()
    assert (system.kafka.closed, system.store.closed) == (2, True)


# --- found by review


def test_an_unknown_outcome_loses_nothing_of_a_partition_that_restores_in_the_same_batch() -> None:
    system = System(partitions=2).write(1, 2, 3, 4, partition=1, stock="B")
    system.kafka.offsets = {0: 0, 1: 4}  # partition 1 was published up to 4; Redis has nothing of it
    system.write(1)
    system.kafka.endings = ["lost unknown"]
    system.start().rounds(4)
    assert len(system.engine.partitions[1].history) == 1
    assert system.store.values(1) == {"B": [1.0, 2.0, 3.0, 4.0]}
    assert system.predicted() == []  # what was restored is not published again


def test_transactions_that_fail_again_and_again_are_told_and_tried_in_smaller_batches(system: System) -> None:
    system.kafka.endings = ["aborted"] * 3
    system.write(3, 4).rounds()
    assert system.engine.troubles == ()  # one abort is a rebalance, mostly
    system.rounds()
    assert system.engine.troubles == ("transactions fail: aborted: a broker moved",)
    sizes = [system.engine._limit]
    system.rounds()
    sizes.append(system.engine._limit)
    assert sizes == [250, 125]
    system.rounds(2)
    assert system.predicted() == [(0, 2), (0, 3)]
    assert system.engine.troubles == ()


def test_a_trouble_goes_with_the_partition_that_had_it(system: System) -> None:
    system.kafka.away = "timed out"
    system.kafka.assign(0)
    system.rounds()
    assert system.engine.troubles[0] == "partitions cannot be seated: timed out"
    system.kafka.changes.append(Change("revoked", (0,)))
    system.rounds()
    assert not any("seated" in trouble for trouble in system.engine.troubles)
    system.kafka.away = ""


def _told_of_a_lost_end(system: System) -> list[str]:
    return [trouble for trouble in system.engine.troubles if trouble.startswith("a transaction has lost its end")]


def test_an_offset_hidden_for_a_minute_tells_how_to_end_the_transaction_that_hides_it() -> None:
    system = System(partitions=2)
    system.kafka.hidden = "timed out"
    system.start()
    assert not _told_of_a_lost_end(system)
    for partition in system.engine.partitions.values():
        assert partition.hidden_since is not None
        partition.hidden_since -= HANGING_SECONDS
    system.engine._seat_again = 0.0
    system.rounds()
    (told,) = _told_of_a_lost_end(system)
    assert "partition 0," in told
    assert "find-hanging" in told
    system.kafka.hidden = ""
    system.engine._seat_again = 0.0
    system.rounds(2)
    assert system.engine.troubles == ()


def test_a_minute_without_another_answer_is_no_lost_end(system: System) -> None:
    system.kafka.away = "no leader"  # every question fails, the brokers' state included
    system.kafka.assign(0)
    system.rounds()
    system.engine.partitions[0].hidden_since = system.engine.partitions[0].tried - HANGING_SECONDS
    system.engine._seat_again = 0.0
    system.rounds()
    assert not _told_of_a_lost_end(system)
    system.kafka.away, system.kafka.boundless = "", "not authorized"  # the offset is told again, the log's ends are not
    system.engine._seat_again = 0.0
    system.rounds()
    assert system.engine.partitions[0].hidden_since is None
    assert not _told_of_a_lost_end(system)


def test_failed_transactions_are_over_when_the_last_one_turns_out_to_be_committed(system: System) -> None:
    system.write(3)
    system.kafka.endings = ["aborted", "aborted", "committed unknown"]
    for _ in range(4):
        system.engine._try_again = 0.0
        system.rounds()
    assert system.predicted() == [(0, 2)]
    assert system.engine.troubles == ()
    assert system.engine._failures == 0


def test_a_redis_that_refuses_writes_does_not_look_well_because_it_answers(system: System) -> None:
    system.store.script = [Unavailable("OOM")] * 3
    system.write(3).rounds(3)
    assert system.engine.troubles == ("Redis does not take what was committed: OOM",)
    system.rounds(2)
    assert system.engine.troubles == ()
    assert system.in_step()


# --- another model


class LastModel(SlopeModel):
    """Forecasts no change; looks two values back. Falling if it fell in the last step, however little."""

    window, reach, min_history = 2, 2, 2

    def predict(self, windows: NDArray[np.float64]) -> Predictions:
        before, last = windows[:, -2, 0], windows[:, -1, 0]
        probability = (before > last).astype(np.float32)
        return Predictions(probability, last.copy(), last - 1, last + 1, np.full(len(windows), 4.0))


def named(system: System) -> list[tuple[int, int, str, bool, bool]]:
    """Of each prediction: partition, offset, version, falling, flipped."""
    found = []
    for topic, _, value, _ in system.kafka.published:
        if topic == "predictions":
            body = json.loads(value or b"")
            source = body["source"]
            found.append((source["partition"], source["offset"], body["model"], body["falling"], body["flipped"]))
    return found


def take_over(system: System, version: str = "v2") -> System:
    system.models.append(ModelChange(active=LastModel(version)))  # type: ignore[arg-type]  # a model of our own
    return system


def test_a_model_takes_over_between_two_batches_and_keeps_flags_rings_and_pending_forecasts(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    system.write(0).rounds()  # fell by one from 1: ½, which is neither on nor off
    system.write(-1).rounds()  # by three from 2: on
    assert named(system) == [(0, 2, "v1", False, False), (0, 3, "v1", True, True)]
    assert system.told("forecast_abs_error_count") == 1
    with caplog.at_level("INFO"):
        take_over(system).write(-2, -2).rounds()
    assert named(system)[2:] == [(0, 4, "v2", True, False), (0, 5, "v2", False, True)]
    assert json.loads(system.kafka.published[-1][2] or b"")["window"] == 2
    assert system.told("forecast_abs_error_count") == 3  # v1's last forecast was scored in v1's own scale …
    assert system.told("naive_abs_error_sum") == pytest.approx(1 / 2 + 1 / 2 + 0 / 4)
    assert system.in_step()
    assert system.store.values() == {"A": [1, 2, 0, -1, -2, -2]}
    assert system.store.metas[0].model == "v2"
    assert system.told("model_swaps_total", outcome="activated") == 1
    assert system.told("model_info", version="v2") == 1
    assert system.metrics.registry.get_sample_value("downtick_model_info", {"version": "v1"}) is None
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["model v2 predicts from now on, v1 did before"]


def test_redis_names_the_new_model_even_where_nothing_comes(system: System) -> None:
    assert system.store.metas[0].model == "v1"
    take_over(system).rounds()
    assert system.store.metas[0].model == "v2"
    assert system.in_step()


def test_all_partitions_change_at_once_and_one_that_waits_is_seated_with_the_new_model() -> None:
    system = System(partitions=2).start()
    system.write(1, 2, 3).write(1, 2, 3, partition=1, stock="B").rounds()
    system.kafka.endings = ["lost unknown"]
    system.write(4).rounds()
    system.kafka.offsets[0] = 4  # somebody else handled it: partition 0 is seated anew
    system.rounds(1)
    take_over(system).write(5).write(4, partition=1, stock="B").rounds(3)
    assert [(partition, offset, version) for partition, offset, version, *_ in named(system)] == [
        (0, 2, "v1"),
        (1, 2, "v1"),
        (0, 4, "v2"),
        (1, 3, "v2"),
    ]


def test_nothing_is_taken_over_while_a_batch_of_the_old_model_may_be_committed(system: System) -> None:
    system.kafka.endings = ["committed unknown"]
    system.write(3).rounds()
    system.kafka.away = "timed out"
    take_over(system).write(4).rounds(2)
    assert len(system.models) == 1
    system.kafka.away = ""
    system.rounds(2)
    assert named(system) == [(0, 2, "v1", False, False), (0, 3, "v2", False, False)]
    assert system.engine.partitions[0].model_from == 3


def test_an_aborted_batch_is_done_again_by_the_model_of_then(system: System) -> None:
    system.kafka.endings = ["aborted"]
    system.write(3).rounds()
    take_over(system).rounds()
    assert named(system) == [(0, 2, "v2", False, False)]
    assert system.in_step()


def test_a_candidate_is_scored_beside_the_active_model_and_publishes_nothing() -> None:
    system = System(reach=4).start()
    system.models.append(ModelChange(candidate=LastModel("v2")))  # type: ignore[arg-type]
    system.write(1, 2, 3).rounds()
    system.kafka.endings = ["aborted"]
    system.write(5, 5).rounds(2)  # done twice, scored once
    system.rounds()  # idle: what waits is scored
    assert {version for _, _, version, *_ in named(system)} == {"v1"}
    assert system.told("shadow_forecast_abs_error_count", model="candidate") == 2
    assert system.told("shadow_forecast_abs_error_sum", model="candidate") == pytest.approx((2 + 0) / 2)
    assert system.told("shadow_forecast_abs_error_sum", model="active") == pytest.approx((1 + 2) / 2)
    assert system.told("shadow_naive_abs_error_sum") == pytest.approx((2 + 0) / 2)
    assert system.told("shadow_info", version="v2") == 1
    system.models.append(ModelChange(no_candidate=True))
    system.write(6).rounds(2)
    assert system.told("shadow_forecast_abs_error_count", model="candidate") == 0
    assert system.metrics.registry.get_sample_value("downtick_shadow_info", {"version": "v2"}) is None
