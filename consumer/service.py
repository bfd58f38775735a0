"""The service: joins the parts, starts the engine's thread, and waits for signals.

The main thread does nothing else, because a Python signal handler runs only between two bytecodes of the main
thread: inside a C call of the engine's it would wait as long as that call."""

from __future__ import annotations

import gc
import logging
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.admin import cleanup_policy, describe
from consumer.applier import Applier
from consumer.batch import Stager
from consumer.engine import Engine, EngineFailed
from consumer.events import EventDecoder
from consumer.http import HttpServer, not_ready
from consumer.kafka_options import admin_options, consumer_options, producer_options
from consumer.metrics import Metrics
from consumer.models import Histories, ModelWatcher, in_a_line, mark_of
from consumer.scoring import Scoring
from consumer.seater import Seater, TopicIdentity
from consumer.seating import Policy, SeatingRefused
from consumer.sink import Sink
from consumer.source import CALL_TIMEOUT, LIBRDKAFKA, Source, SourceAway
from consumer.stop import SHUTDOWN_SECONDS, Stop
from consumer.stores import store_of
from model import versions
from model.bundle import BadBundle
from model.predictor import Predictor
from state.errors import StoreRefused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.models import Mark
    from consumer.settings import Settings
    from state.store import RedisStore

logger = logging.getLogger(__name__)


class CannotStart(Exception):
    """Something is wrong that waiting will not mend; the message names cause and way on."""


def run(settings: Settings, *, accept_gap: bool = False) -> int:
    """Run one worker until a signal ends it. Returns the exit code: 0 after an orderly end.

    Raises: CannotStart before the group is joined."""
    stop = Stop()
    stop.listen()
    metrics = Metrics()
    store = _store(settings)
    predictor, mark = _predictor(settings)
    metrics.show_model(predictor.version)
    histories = Histories.of(predictor, _candidate(settings), settings.history.depth)
    models = ModelWatcher(settings.model.path, predictor, mark, histories, metrics, load=Predictor.load)
    admin = AdminClient(admin_options(settings), logger=LIBRDKAFKA)
    source = Source(
        consumer_options(settings),
        settings.kafka.input_topic,
        incremental=settings.kafka.incremental,
        on_error=lambda text: engine.kafka_error(text),  # noqa: PLW0108  # the engine comes later
    )
    sink = Sink(producer_options(settings), left=stop.left)
    decoder = EventDecoder(predictor.fields, settings.events.max_bytes, settings.events.max_ahead)
    engine = Engine(
        source=source,
        sink=sink,
        store=store,
        stager=Stager(decoder, predictor, metrics, settings.history.max_stocks, settings.dead_letters.max_consecutive),
        seater=Seater(
            source,
            store,
            predictor,
            metrics,
            identify=lambda: _identity(admin, settings.kafka.input_topic),
            reach=histories.reach,
            depth=settings.history.depth,
            policy=Policy(settings.kafka.start, settings.restore.max_records, accept_gap),
        ),
        applier=Applier(store, metrics),
        scoring=Scoring(predictor, metrics, histories.reach),
        models=models.take,
        metrics=metrics,
        output_topic=settings.kafka.output_topic,
        dead_letter_topic=settings.kafka.dead_letter_topic,
        max_events=settings.batch.max_events,
        max_wait=settings.batch.max_wait,
        live_namesake=lambda: _namesake(admin, settings, source.member_id()),
        is_member=(lambda: source.member_id() in _members(admin, settings)) if settings.kafka.kip_848 else None,
        stop=stop,
        version=version("downtick"),
    )

    def beat() -> float:
        return engine.beat

    def troubles() -> tuple[str, ...]:
        return engine.troubles

    # Asked at each scrape, not set by the engine: one that hangs would go on being ready.
    metrics.ready.set_function(lambda: not not_ready(beat, troubles))
    try:
        http = HttpServer(settings.http.host, settings.http.port, metrics.registry, beat=beat, troubles=troubles)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {settings.http.host}:{settings.http.port}: {error.strerror}; set http.host or http.port"
        ) from error
    logger.info("serving /metrics, /live and /ready on http://%s:%d", settings.http.host, http.port)
    _quiet_collector()
    models.start()
    worker = _Worker(engine, lambda: _look_for_topics(admin, settings))
    stop.joining()
    worker.start()
    while worker.is_alive() and not stop.wait(0.2):
        pass
    if stop.asked():
        logger.info("asked to stop: finishing what is in hand")
        worker.join(stop.left(SHUTDOWN_SECONDS - 0.5))
        if worker.is_alive():
            logger.error("not done in time: what is in hand is left to the next worker, which finds it in the log")
    models.stop()
    http.close()
    return worker.exit_code


class _Worker(threading.Thread):
    """The engine's thread, and how it ended."""

    def __init__(self, engine: Engine, first: Callable[[], None]) -> None:
        super().__init__(name="engine", daemon=True)
        self._engine, self._first = engine, first
        self.exit_code = 1

    def run(self) -> None:
        try:
            self._first()
            self._engine.run()
        except (EngineFailed, SeatingRefused, StoreRefused) as error:
            logger.error("stopped: %s", error)  # noqa: TRY400  # the message says it all
        except Exception:
            logger.exception("stopped by a bug: nothing was committed that is not whole; please report this")
        else:
            logger.info("stopped")
            self.exit_code = 0


def _look_for_topics(admin: AdminClient, settings: Settings) -> None:
    """Warn of output topics that do not exist: brokers that create them at the first record do so even for a misspelt
    name. (A missing input topic is a trouble of the engine's.) And of a compacted input. Silent when no broker answers.
    """
    kafka = settings.kafka
    try:
        found = admin.list_topics(timeout=3).topics
    except KafkaException:
        return
    for setting, topic in (("output_topic", kafka.output_topic), ("dead_letter_topic", kafka.dead_letter_topic)):
        if topic not in found:
            logger.warning("topic %r does not exist; is kafka.%s right? If so, create it", topic, setting)
    if "compact" in cleanup_policy(admin, kafka.input_topic):
        logger.warning(
            "topic %r is compacted: what compaction takes out is missing in histories that are read from it again. "
            "Set cleanup.policy=delete on it",
            kafka.input_topic,
        )


def _quiet_collector() -> None:
    """Take what is loaded out of the garbage collector's sight, and let it look at the rest more seldom.

    A full collection walks all of TensorFlow: 0.13 s that a batch would wait, several times a minute under load.
    Batches leave no cycles behind, so there is little to find."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _store(settings: Settings) -> RedisStore:
    """Redis, checked once: what configuration makes impossible must stop the start. That it is away must not."""
    try:
        store = store_of(settings)
        store.check()
    except StoreRefused as error:
        raise CannotStart(str(error)) from error
    except Unavailable as error:
        logger.warning("Redis is away, waiting: %s", error)
    return store


def _predictor(settings: Settings) -> tuple[Predictor, Mark]:
    """What predicts first, and the state of its folder before it was read."""
    try:
        folder = versions.resolve(settings.model.path)
        mark = mark_of(folder)
        predictor = Predictor.load(folder)
    except BadBundle as error:
        raise CannotStart(f"the model cannot be used: {error}") from error
    if predictor.reach > settings.history.depth:
        raise CannotStart(
            f"the model reaches back {predictor.reach} values, history.depth keeps {settings.history.depth}: raise "
            f"history.depth to {predictor.reach} or more"
        )
    predictor.warm()
    logger.info("model %s loaded, verified and warm", predictor.version, extra={"model": predictor.version})
    return predictor, mark


def _candidate(settings: Settings) -> Predictor | None:
    """The one that shall run in shadow, for the size of the histories only: the watcher takes it, or refuses it. What
    is wrong with it, no memory for it included, is nothing to stop what predicts."""
    try:
        folder = versions.candidate(settings.model.path)
        return Predictor.load(folder) if folder is not None else None
    except Exception as error:  # noqa: BLE001  as the watcher does
        logger.warning("starting without the candidate: %s", in_a_line(error))
        return None


def _identity(admin: AdminClient, topic: str) -> TopicIdentity:
    try:
        cluster_id, topic_id, _ = describe(admin, topic, timeout=CALL_TIMEOUT)
    except (KafkaException, TimeoutError) as error:
        raise SourceAway(f"describing topic {topic}: {error}") from error
    return TopicIdentity(cluster_id, topic_id)


def _namesake(admin: AdminClient, settings: Settings, member_id: str) -> bool:
    """Whether another member of the group carries this worker's name (its client.id)."""
    if not member_id:
        return False  # out of the group ourselves: the one that is listed may be our former self
    return any(name == settings.worker for member, name in _members(admin, settings).items() if member != member_id)


def _members(admin: AdminClient, settings: Settings) -> dict[str, str]:
    """Member ids of the group, and each one's client.id, which is its worker's name."""
    group = settings.kafka.group_id
    try:
        found = admin.describe_consumer_groups([group], request_timeout=CALL_TIMEOUT)[group].result(2 * CALL_TIMEOUT)
    except (KafkaException, TimeoutError) as error:
        raise SourceAway(f"describing group {group}: {error}") from error
    return {member.member_id: member.client_id for member in found.members}
