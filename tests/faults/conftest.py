"""A system for each scenario, on Apache Kafka; and scenarios that run a few at a time, since most of them wait."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.reference_model import KerasModel
from tests.support.system import System
from tests.support.together import Together

NewSystem = Callable[..., System]
AT_ONCE = 4  # on two cores
PATIENCE = 1_200  # seconds for one result: a test waits for its scenario, which may wait for its turn


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "scenario(run, first=False): run(new_system) gives the test's `outcome`; all scenarios of this folder run "
        "side by side, those with `first` before the others",
    )


def scenario(run: Callable[[NewSystem], Any], *, first: bool = False) -> pytest.MarkDecorator:
    """Mark a test with its scenario. (`pytest.mark.scenario(run)` alone would take `run` for the test.)"""
    return pytest.mark.scenario.with_args(run, first=first)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("scenario"):
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def new_system(
    apache: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> NewSystem:
    """Makes a System, on the shared servers if not told otherwise (`broker`, `redis_url`); to be used as a context.
    May be called from several threads."""
    folder = tmp_path_factory.mktemp("systems")
    count = itertools.count(1)

    def make(*, broker: Broker = apache, redis_url: str = shared_redis.url, **options: Any) -> System:
        return System(folder / str(next(count)), broker, redis_url, model, **options)

    return make


def _scenario(item: pytest.Item) -> Callable[[NewSystem], object] | None:
    marker = item.get_closest_marker("scenario")
    return marker.args[0] if marker else None


@pytest.fixture(scope="session")
def scenarios(request: pytest.FixtureRequest, new_system: NewSystem) -> Iterator[Together[object]]:
    """The scenarios of all tests that were selected."""
    items = [item for item in request.session.items if _scenario(item)]
    items.sort(key=lambda item: not item.get_closest_marker("scenario").kwargs.get("first", False))
    runs = {str(id(run)): lambda run=run: run(new_system) for item in items if (run := _scenario(item))}
    with Together(runs, AT_ONCE) as together:
        yield together


@pytest.fixture
def outcome(request: pytest.FixtureRequest, scenarios: Together[object]) -> object:
    """What this test's scenario returned."""
    return scenarios.result(str(id(_scenario(request.node))))
