"""The watcher: what it takes over, what it refuses, and that it says each thing once. Bundles are empty folders here;
what is loaded from them is a double."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from consumer.metrics import Metrics
from consumer.models import INTERVAL, NICE, SWITCH, Change, Histories, ModelWatcher, mark_of
from model import versions
from model.bundle import BadBundle
from model.manifest import LabelRule
from tests.unit.consumer.doubles import GIVEN, SlopeModel

REGIME = LabelRule(rule="regime", look_ahead=8)
HISTORIES = Histories(fields=(), reach=11, depth=64)


class Model(SlopeModel):
    """A version with a shape of its own."""

    def __init__(self, version: str, *, fields: tuple[str, ...] = (), reach: int = 3, label: LabelRule = GIVEN) -> None:
        super().__init__(version, label)
        self.fields, self.reach = fields, reach
        self.warmed = 0

    def warm(self) -> None:
        self.warmed += 1


class World:
    """A folder of versions, the models in it, and the watcher's looks, one by one."""

    def __init__(self, folder: Path, first: str = "v1") -> None:
        self.folder, self.metrics = folder, Metrics()
        self.models: dict[str, Model | Exception] = {}
        self.loads: list[str] = []
        self.active = Model(first)
        self.put(first, self.active)
        (folder / "current").write_text(f"{first}\n")
        self.watcher = ModelWatcher(
            folder,
            self.active,  # type: ignore[arg-type]  # a model of our own
            mark_of(folder / first),
            HISTORIES,
            self.metrics,
            load=self.load,  # type: ignore[arg-type]
        )

    def put(self, name: str, model: Model | Exception) -> None:
        """A bundle in the folder `name`, new or in the place of another."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for file in ("bundle.json", "weights.npz", "golden.npz"):
            scratch = folder / ".new"
            scratch.write_text(str(len(self.loads)))
            scratch.replace(folder / file)
        self.models[name] = model

    def load(self, folder: Path) -> Model:
        self.loads.append(folder.name)
        found = self.models[folder.name]
        if isinstance(found, Exception):
            raise found
        return found

    def look(self, times: int = 2) -> Change | None:
        """Look, and give what the engine would find."""
        for _ in range(times):
            self.watcher.look()
        return self.watcher.take()

    def told(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"downtick_{name}", labels)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    class Lines(list[str]):
        def __eq__(self, other: object) -> bool:
            return [record.getMessage() for record in caplog.records] == other

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            return repr([record.getMessage() for record in caplog.records])

    with caplog.at_level("INFO"):
        yield Lines()


def test_nothing_changes_while_nothing_changes(world: World) -> None:
    assert world.look(5) is None
    assert world.loads == []


def test_a_change_must_stand_for_two_looks_and_is_offered_once_warm(world: World) -> None:
    second = Model("v2")
    world.put("v2", second)
    versions.activate(world.folder, "v2")
    assert world.look(1) is None
    assert world.look(1) == Change(active=second)  # type: ignore[arg-type]
    assert second.warmed == 1
    assert world.look(5) is None
    assert world.loads == ["v2"]


def test_a_copy_that_is_under_way_is_left_alone(world: World) -> None:
    world.put("v2", BadBundle("weights.npz is missing"))
    versions.activate(world.folder, "v2")
    for size in range(5):
        (world.folder / "v2" / "weights.npz").write_text("more" * size)
        assert world.look(1) is None
    assert world.loads == []


def test_a_bundle_that_is_replaced_in_its_place_is_noticed(world: World) -> None:
    again = Model("v1b")
    world.put("v1", again)
    assert world.look() == Change(active=again)  # type: ignore[arg-type]


def test_the_same_bundle_touched_is_no_change(world: World) -> None:
    world.put("v1", Model("v1"))
    assert world.look(5) is None
    assert world.loads == ["v1"]
    assert world.told("model_swaps_total", outcome="activated") == 0


def test_the_same_version_with_another_manifest_is_a_change(world: World) -> None:
    world.put("v1", other := Model("v1", label=REGIME))
    assert world.look() == Change(active=other)  # type: ignore[arg-type]


def test_a_bundle_alone_without_a_folder_of_versions_is_watched_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    watcher = ModelWatcher(
        tmp_path / "v1",
        world.active,  # type: ignore[arg-type]
        mark_of(tmp_path / "v1"),
        HISTORIES,
        world.metrics,
        load=world.load,  # type: ignore[arg-type]
    )
    world.put("v1", again := Model("v2"))
    watcher.look()
    watcher.look()
    assert watcher.take() == Change(active=again)  # type: ignore[arg-type]


def test_a_broken_bundle_is_refused_once_and_tried_again_when_it_changes(world: World, lines: list[str]) -> None:
    world.put("v2", BadBundle("v2/weights.npz: damaged"))
    versions.activate(world.folder, "v2")
    assert world.look(6) is None
    refusal = "model v2 refused, v1 goes on: v2/weights.npz: damaged; it is looked at again when it changes"
    assert lines == [refusal]
    assert world.told("model_swaps_total", outcome="refused") == 1
    world.put("v2", mended := Model("v2"))
    assert world.look() == Change(active=mended)  # type: ignore[arg-type]
    assert lines == [refusal]


def test_a_fault_that_nobody_foresaw_refuses_a_model_like_any_other_and_shadow_is_still_looked_at(
    world: World, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Large(Model):
        def warm(self) -> None:
            raise MemoryError("Out of memory allocating 17179869184 bytes.\nLargest program allocations:\n ...")

    world.put("v2", Large("v2"))
    world.put("v3", third := Model("v3"))
    versions.activate(world.folder, "v2")
    versions.shadow(world.folder, "v3")
    assert world.look(6) == Change(candidate=third)  # type: ignore[arg-type]
    why = "MemoryError: Out of memory allocating 17179869184 bytes.; it is looked at again when it changes"
    assert lines == [f"model v2 refused, v1 goes on: {why}"]
    assert caplog.records[0].exc_info is not None  # the whole of it, in the same record
    assert world.told("model_swaps_total", outcome="refused") == 1
    world.put("v2", mended := Model("v2"))
    assert world.look().active is mended  # type: ignore[union-attr]


def test_a_folder_that_cannot_be_looked_into_is_told_once(
    world: World, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(path: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(versions, "resolve", resolve)
        assert world.look(6) is None
    why = f"PermissionError: [Errno 13] Permission denied: '{world.folder}'; it is looked at again when it changes"
    assert lines == [f"model in the folder of versions refused, v1 goes on: {why}"]
    assert world.look(4) is None  # back to what predicts


def test_a_candidate_with_a_fault_that_nobody_foresaw_is_refused(world: World, lines: list[str]) -> None:
    world.put("v2", MemoryError())
    versions.shadow(world.folder, "v2")
    assert world.look(4) is None
    why = "MemoryError; it is looked at again when it changes"
    assert lines == [f"candidate v2 refused, nothing runs in shadow: {why}"]
    assert world.told("shadow_candidates_total", outcome="refused") == 1


def test_back_to_what_predicts_after_a_refusal_loads_nothing(world: World) -> None:
    world.put("v2", BadBundle("damaged"))
    versions.activate(world.folder, "v2")
    world.look()
    versions.rollback(world.folder)
    assert world.look(3) is None
    assert world.loads == ["v2"]
    versions.activate(world.folder, "v2")  # and refused again, if somebody insists
    world.look()
    assert world.told("model_swaps_total", outcome="refused") == 2


def test_a_rollback_is_a_swap_like_any_other(world: World) -> None:
    world.put("v2", Model("v2"))
    versions.activate(world.folder, "v2")
    world.look()
    versions.rollback(world.folder)
    assert world.look() == Change(active=world.active)  # type: ignore[arg-type]


def test_a_pointer_that_leads_nowhere_is_refused_once(world: World, lines: list[str]) -> None:
    (world.folder / "current").write_text("v9\n")
    assert world.look(6) is None
    (world.folder / "current").write_text("../v1\n")
    assert world.look(6) is None
    refused = f"model in the folder of versions refused, v1 goes on: {world.folder / 'current'}"
    again = "; it is looked at again when it changes"
    assert lines == [
        f"{refused}: there is no folder v9 beside it{again}",
        f"{refused}: '../v1' is not the plain name of a folder beside it{again}",
    ]


TOO_FAR = "it reaches back 65 values, memory holds 11 of each stock: restart the workers with it"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            Model("v2", fields=("volume", "spread")),
            "it needs the fields volume, spread, the histories hold no fields: restart the workers with it",
        ),
        (
            Model("v2", reach=12),
            "it reaches back 12 values, memory holds 11 of each stock: restart the workers with it",
        ),
        (Model("v2", reach=65), f"{TOO_FAR}, and history.depth at 65 or more"),
    ],
)
def test_a_bundle_that_does_not_fit_the_histories_is_refused_with_the_way_on(
    world: World, lines: list[str], model: Model, why: str
) -> None:
    world.put("v2", model)
    versions.activate(world.folder, "v2")
    assert world.look(4) is None
    assert lines == [f"model v2 refused, v1 goes on: {why}"]
    assert model.warmed == 0


def test_a_bundle_that_changes_while_it_is_read_is_read_again(world: World) -> None:
    class Slow(Model):
        def warm(self) -> None:
            super().warm()
            if self.warmed == 1:
                world.put("v2", last)

    last = Model("v2-whole")
    world.put("v2", Slow("v2-half"))
    versions.activate(world.folder, "v2")
    world.look(2)
    assert world.look(2) == Change(active=last)  # type: ignore[arg-type]


# --- the candidate


def test_a_candidate_is_offered_and_let_go(world: World) -> None:
    world.put("v2", second := Model("v2"))
    versions.shadow(world.folder, "v2")
    assert world.look() == Change(candidate=second)  # type: ignore[arg-type]
    versions.shadow(world.folder, None)
    assert world.look() == Change(no_candidate=True)
    assert world.look(3) is None


def test_a_candidate_that_cannot_be_used_is_refused_and_the_one_before_goes(world: World, lines: list[str]) -> None:
    world.put("v2", Model("v2"))
    versions.shadow(world.folder, "v2")
    world.look()
    world.put("v3", BadBundle("damaged"))
    versions.shadow(world.folder, "v3")
    assert world.look(4) == Change(no_candidate=True)
    assert lines == [
        "candidate v3 refused, nothing runs in shadow: damaged; it is looked at again when it changes",
    ]
    assert world.told("shadow_candidates_total", outcome="refused") == 1
    assert world.told("model_swaps_total", outcome="refused") == 0


def test_a_candidate_whose_truth_comes_later_than_memory_reaches_is_refused(world: World, lines: list[str]) -> None:
    world.put("v2", Model("v2", label=REGIME, reach=4))
    versions.shadow(world.folder, "v2")
    assert world.look(4) is None
    why = "it needs, to be compared with what came since, 17 values, memory holds 11 of each stock"
    assert lines == [f"candidate v2 refused, nothing runs in shadow: {why}: restart the workers with it"]


def test_a_promoted_candidate_is_compared_with_nothing(world: World, lines: list[str]) -> None:
    world.put("v2", second := Model("v2"))
    versions.shadow(world.folder, "v2")
    world.look()
    versions.activate(world.folder, "v2")
    assert world.look(5) == Change(active=second)  # type: ignore[arg-type]
    assert lines == ["the candidate v2 is the active version: nothing to compare"]


def test_a_candidate_is_looked_at_again_beside_another_active_version(world: World) -> None:
    world.put("v2", second := Model("v2"))
    world.put("v3", third := Model("v3"))
    versions.shadow(world.folder, "v3")
    assert world.look() == Change(candidate=third)  # type: ignore[arg-type]
    versions.activate(world.folder, "v2")
    assert world.look(2) == Change(active=second)  # type: ignore[arg-type]  # with which the candidate goes
    assert world.look(2) == Change(candidate=third)  # type: ignore[arg-type]


# --- the histories of a start


def test_memory_holds_what_scores_need_but_never_more_than_redis() -> None:
    active = Model("v1", label=REGIME)
    assert Histories.of(active, None, 128) == Histories((), 17, 128)  # type: ignore[arg-type]
    assert Histories.of(active, None, 12) == Histories((), 12, 12)  # type: ignore[arg-type]
    assert Histories.of(Model("v1"), None, 128).reach == 3  # type: ignore[arg-type]
    assert Histories.of(active, Model("v2", reach=40), 128).reach == 48  # type: ignore[arg-type]
    other = Model("v2", reach=40, fields=("volume",))
    assert Histories.of(active, other, 128).reach == 17  # type: ignore[arg-type]  # it will be refused anyway


# --- the thread


def test_the_thread_looks_by_itself_yields_to_others_and_survives_a_bug(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, int]] = []
    bugs = [KeyError("a bug")]

    def load(_: Path) -> Model:
        seen.append((threading.current_thread().name, sys.getswitchinterval(), os.getpriority(os.PRIO_PROCESS, 0)))
        return Model("v2")

    def look(look: Callable[[], None]) -> None:
        if bugs:
            raise bugs.pop()
        look()

    watcher = ModelWatcher(
        world.folder,
        world.active,  # type: ignore[arg-type]
        mark_of(world.folder / "v1"),
        HISTORIES,
        world.metrics,
        load=load,  # type: ignore[arg-type]
        interval=0.01,
    )
    monkeypatch.setattr(watcher, "look", partial(look, watcher.look))
    watcher.start()
    world.put("v2", Model("v2"))
    versions.activate(world.folder, "v2")
    deadline = time.monotonic() + 20
    change = None
    while change is None and time.monotonic() < deadline:
        change = watcher.take()
        time.sleep(0.05)
    watcher.stop()
    assert change is not None
    assert change.active is not None
    assert change.active.version == "v2"
    assert "looking for another model failed; the one that predicts goes on" in caplog.text
    assert {name for name, _, _ in seen} == {"models"}
    assert all(switch == pytest.approx(SWITCH) for _, switch, _ in seen)
    assert sys.getswitchinterval() > SWITCH
    ours = os.getpriority(os.PRIO_PROCESS, 0)  # of the calling thread, on Linux
    assert {nice for _, _, nice in seen} == {max(ours, NICE)}


def test_a_change_is_noticed_within_ten_seconds() -> None:
    assert 3 * INTERVAL < 10  # at the latest two looks after the one that it just missed
