"""A system for each test, on Apache Kafka."""

import itertools
from collections.abc import Callable

import pytest

from consumer.sandbox import EmbeddedRedis
from tests.support.broker import Broker
from tests.support.reference_model import KerasModel
from tests.support.system import System

NewSystem = Callable[..., System]


@pytest.fixture(scope="module")
def new_system(
    apache: Broker, shared_redis: EmbeddedRedis, model: KerasModel, tmp_path_factory: pytest.TempPathFactory
) -> NewSystem:
    """Makes a System on the shared servers; to be used as a context. May be called from several threads."""
    folder = tmp_path_factory.mktemp("systems")
    count = itertools.count(1)

    def make(**options: object) -> System:
        return System(folder / str(next(count)), apache, shared_redis.url, model, **options)  # type: ignore[arg-type]

    return make
