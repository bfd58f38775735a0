"""Models change under a running service: on a real broker and a real Redis, from outside, while updates flow.

One life in chapters. It starts with v1; v2 takes over; v3 is damaged, v4 needs a field, v5 reaches further back than
the histories: all three are refused; v1 is rolled back to. In the end each output is what the version it names says."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from consumer.sandbox import EmbeddedRedis
from model import versions
from model.manifest import Thresholds
from tests.support import compare
from tests.support.broker import Broker
from tests.support.processes import wait_until
from tests.support.readers import Record
from tests.support.reference import NEAR, Expected, _decide, expect
from tests.support.reference_model import KerasModel
from tests.support.service import ROOT, Service
from tests.support.system import System
from tests.support.variants import variant

SEED, STOCKS, RATE, PARTITIONS = 7_300, 15, 150, 3
NOTICED = 10  # seconds, as the design promises
EMBEDDED = {"partition.assignment.strategy": "range"}
Place = tuple[int, int]


@dataclass
class Told:
    """What the service said at the end of a chapter."""

    seconds: float  # since the pointer was written
    outcomes: dict[str, float]
    versions: dict[str, float]  # of model_info


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of versions, v1 active."""
    folder = tmp_path_factory.mktemp("models")
    low = Thresholds(falling_on=0.4, falling_off=0.35)  # another version may have other thresholds
    for name, options in {
        "v1": {"seed": 1},
        "v2": {"seed": 2, "thresholds": low},
        "v3": {"seed": 3},
        "v4": {"seed": 4, "fields": ("volume",)},
        "v5": {"seed": 5, "window": 64},
    }.items():
        variant(folder / name, **options)  # type: ignore[arg-type]  # of a mapping
    weights = folder / "v3" / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    versions.activate(folder, "v1")
    return folder


@pytest.fixture(scope="module")
def known(models: Path) -> dict[str, KerasModel]:
    """By version: what the reference makes of each bundle that may predict."""
    found = [KerasModel(models / name) for name in ("v1", "v2")]
    return {model.version: model for model in found}


@pytest.fixture(scope="module")
def first(models: Path) -> KerasModel:
    return KerasModel(models / "v1")


@pytest.fixture(scope="module")
def second(models: Path) -> KerasModel:
    return KerasModel(models / "v2")


@pytest.fixture(scope="module")
def system(
    embedded: Broker,
    shared_redis: EmbeddedRedis,
    first: KerasModel,
    models: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("swaps")
    settings = {"model.path": str(models)}
    with System(
        folder, embedded, shared_redis.url, first, partitions=PARTITIONS, consumer=EMBEDDED, settings=settings
    ) as system:
        yield system


def downtick(*arguments: str) -> str:
    """A command as an operator types it, in a process of its own; what it printed."""
    command = [sys.executable, "-m", "consumer.cli", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("DOWNTICK_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT, env=env | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def by(service: Service, name: str, label: str) -> dict[str, float]:
    return {dict(has)[label]: value for (sample, has), value in service.metrics().items() if sample == name and value}


def told(service: Service, models: Path) -> Told:
    return Told(
        time.time() - (models / "current").stat().st_mtime,
        by(service, "downtick_model_swaps_total", "outcome"),
        by(service, "downtick_model_info", "version"),
    )


def swap(service: Service, version: str, models: Path) -> Told:
    """Wait until this version predicts."""
    wait_until(
        lambda: service.metric("model_info", version=version) == 1,
        within=NOTICED + 20,
        what=lambda: f"{version} to predict\n{service.process.tail()}",
    )
    return told(service, models)


def refusal(service: Service, count: int, models: Path) -> Told:
    """Wait until so many were refused."""
    wait_until(
        lambda: service.metric("model_swaps_total", outcome="refused") == count,
        within=NOTICED + 20,
        what=lambda: f"{count} refusals\n{service.process.tail()}",
    )
    time.sleep(5)  # two more looks: nothing may be said again
    return told(service, models)


@dataclass
class Life:
    """All chapters."""

    told: dict[str, Told]
    service: Service
    log: list[Record]
    predictions: list[Record]
    activated: str  # what the command said

    def said(self, text: str) -> list[str]:
        """Messages of the service's log that hold this text."""
        entries = [json.loads(line) for line in self.service.log.read_text().splitlines() if line.startswith("{")]
        return [entry["message"] for entry in entries if text in entry["message"]]

    @property
    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(record.value or b"") for record in self.predictions]


def place(body: Mapping[str, object]) -> Place:
    source = body["source"]
    assert isinstance(source, dict)
    return source["partition"], source["offset"]


@pytest.fixture(scope="module")
def life(system: System, models: Path, first: KerasModel, second: KerasModel) -> Life:
    chapters: dict[str, Told] = {}
    service = system.worker().start()
    with system.load(seed=SEED, stocks=STOCKS, rate=RATE):
        service.wait_ready(90)
        system.wait_for_outputs(500)

        chapters["start"] = told(service, models)
        activated = downtick("models", "activate", "v2", "--model.path", str(models))
        chapters["v2"] = swap(service, second.version, models)
        time.sleep(2)
        for count, name in enumerate(("v3", "v4", "v5"), start=1):
            versions.activate(models, name)  # the command would not let a damaged one pass
            chapters[name] = refusal(service, count, models)
        for _ in range(3):
            versions.rollback(models)
        time.sleep(5)  # v2 again, which predicts: no swap
        chapters["back to v2"] = told(service, models)
        versions.rollback(models)
        chapters["back to v1"] = swap(service, first.version, models)
        time.sleep(2)
    system.wait_until_done()
    return Life(chapters, service, system.log(), system.predictions(), activated)


def test_a_version_that_is_activated_predicts_within_ten_seconds(
    life: Life, first: KerasModel, second: KerasModel
) -> None:
    assert life.told["start"].versions == {first.version: 1}
    assert life.activated.startswith(f"{second.version} is active now")
    for chapter, model in (("v2", second), ("back to v1", first)):
        found = life.told[chapter]
        print(f"{chapter}: {found.seconds:.1f} s")
        assert found.seconds < NOTICED
        assert found.versions == {model.version: 1}
    assert life.told["back to v1"].outcomes == {"activated": 2, "refused": 3}


def test_on_each_partition_every_output_is_the_old_versions_up_to_an_offset_and_the_new_ones_from_there(
    life: Life, first: KerasModel, second: KerasModel
) -> None:
    for partition in range(PARTITIONS):
        named = sorted((place(body)[1], body["model"]) for body in life.bodies if place(body)[0] == partition)
        runs = [(version, len(list(of))) for version, of in itertools.groupby(version for _, version in named)]
        assert [version for version, _ in runs] == [first.version, second.version, first.version], runs
        assert min(length for _, length in runs) > 50


def test_nothing_is_lost_nothing_comes_twice_and_every_number_is_that_of_the_version_named(
    life: Life, system: System, known: dict[str, KerasModel]
) -> None:
    named = {place(body): str(body["model"]) for body in life.bodies}
    flags = {place(body): bool(body["falling"]) for body in life.bodies}
    expected = whole(life.log, known, named, flags)
    assert Counter(place(body) for body in life.bodies) == Counter(expected.predictions.keys())
    for version, model in known.items():
        mine = [record for record, body in zip(life.predictions, life.bodies, strict=True) if body["model"] == version]
        places = {at for at, by_version in named.items() if by_version == version}
        part = {at: update for at, update in expected.predictions.items() if at in places}
        assert len(part) > 300
        compare.check_predictions(mine, replace(expected, predictions=part), model, system.input_topic)
    compare.check_dead_letters(system.dead_letters(), expected, system.input_topic)
    committed = compare.check_offsets(system.broker, system.group, system.input_topic, life.log)
    system.check_redis(expected, committed)


def whole(
    log: list[Record], models: Mapping[str, KerasModel], named: Mapping[Place, str], published: Mapping[Place, bool]
) -> Expected:
    """The log folded once by each version; each update as the version says that published it, flags chained through."""
    folds = {version: expect(log, model) for version, model in models.items()}
    found, *others = folds.values()
    for fold in others:
        assert fold.dead_letters == found.dead_letters
        assert fold.skipped == found.skipped
    found.near = 0
    for (partition, _), history in found.histories.items():
        falling = False
        for update in history:
            at, before = (partition, update.offset), falling
            if at in found.predictions:
                version = named[at]  # a prediction that is missing is a failure of its own, told as a KeyError
                update.outlook = folds[version].predictions[at].outlook
                assert update.outlook is not None
                model, probability = models[version], update.outlook.probability
                low, high = (_decide(falling, probability + near, model) for near in (-NEAR, NEAR))
                found.near += low != high
                falling = low if low == high else published[at]
            update.falling, update.flipped = falling, falling != before
    return found


def test_each_refusal_is_told_once_with_its_reason_and_the_way_on(life: Life, models: Path) -> None:
    goes_on = f"refused, {KerasModel(models / 'v2').version} goes on:"
    damaged = "models/v3/weights.npz: its SHA-256 is not the one in bundle.json: damaged, or of another bundle"
    assert [re.sub(str(models), "models", line) for line in life.said("refused")] == [
        f"model v3 {goes_on} {damaged}; it is looked at again when it changes",
        f"model v4 {goes_on} it needs the fields volume, the histories hold no fields: restart the workers with it",
        f"model v5 {goes_on} it reaches back 64 values, memory holds 40 of each stock: restart the workers with it",
    ]
    for chapter in ("v3", "v4", "v5", "back to v2"):
        assert life.told[chapter].versions == life.told["v2"].versions
    assert life.service.ready


def test_redis_names_the_version_that_predicts(life: Life, system: System, first: KerasModel) -> None:
    assert life.service.ready
    for partition in range(PARTITIONS):
        key = f"test:{{{system.group}/{system.input_topic}/{partition}}}:meta"
        assert system.redis.hget(key, "model") == first.version.encode()
