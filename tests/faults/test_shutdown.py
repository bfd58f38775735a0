"""How a worker ends under load: when asked, and when another live worker carries its name."""

from tests.faults.acts import PARTITIONS, SHORT, holds, works_on
from tests.faults.conftest import NewSystem, scenario
from tests.support.processes import wait_until
from tests.support.system import PREFIX


def asked_to_stop(new_system: NewSystem) -> tuple[dict[int, int], dict[int, int]]:
    """SIGTERM under load; what is committed, and what Redis holds, by next offset."""
    with new_system(consumer=SHORT) as system:
        readers = system.watch()
        with system.load(seed=501, stocks=60, rate=800):
            one = system.worker("one").start()
            two = system.spare("two")
            works_on(one, 1_000)
            one.terminate(within=10)
            committed = system.committed()
            tags = {p: f"{PREFIX}:{{{system.group}/{system.input_topic}/{p}}}:meta" for p in range(PARTITIONS)}
            watermarks = {p: system.redis.hget(tag, "watermark") for p, tag in tags.items()}
            works_on(system.take_over(two))
        system.wait_until_done()
        system.check(readers)
        return committed, {p: int(watermark) + 1 for p, watermark in watermarks.items() if watermark is not None}


def two_of_one_name(new_system: NewSystem) -> tuple[int, bool]:
    """A second process gets a live worker's name: exit code and words of the one that ends."""
    with new_system(consumer=SHORT) as system:
        readers = system.watch()
        with system.load(seed=502, stocks=60, rate=500):
            old = system.worker("one").start()
            new = system.spare("one")
            works_on(old)
            system.take_over(new)
            wait_until(
                lambda: not (old.running and new.running),
                within=60,
                what=lambda: f"one of two ended\n{old.process.tail()}\n{new.process.tail()}",
            )
            ended, stays = (old, new) if not old.running else (new, old)
            holds(stays, PARTITIONS)
            works_on(stays)
            system.workers["one"] = stays
        system.wait_until_done()
        system.check(readers)
        return ended.process.wait(1), ended.says("the same name")


@scenario(asked_to_stop)
def test_sigterm_under_load_leaves_everything_whole(outcome: tuple[dict[int, int], dict[int, int]]) -> None:
    committed, applied = outcome
    assert len(committed) == PARTITIONS
    assert applied == committed, "what was committed has reached Redis"


@scenario(two_of_one_name)
def test_of_two_live_workers_with_one_name_one_ends_and_says_why(outcome: tuple[int, bool]) -> None:
    code, said = outcome
    assert code not in (0, None)
    assert said
