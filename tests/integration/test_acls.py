"""The rights and the secrets of docs/operations.md against servers that ask for them: Apache Kafka with TLS, SCRAM and
its authorizer, Redis with TLS and a user of its own. The settings are the guide's SCRAM example, word for word."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.conftest import apache_kafka_or_skip
from tests.support import guide
from tests.support.broker import Broker
from tests.support.certificates import Authority
from tests.support.kafka import ApacheKafka
from tests.support.load import Event, produce
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.readers import read
from tests.support.redis_servers import RedisServer
from tests.support.service import Service

TOPICS = ("prices", "predictions", "prices.dead-letters")
T0 = 1_795_444_200_000
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def rights() -> dict[str, list[AclBinding]]:
    """What each `acl` line under "Rights" gives, by the line."""
    found: dict[str, list[AclBinding]] = {}
    (block,) = (block for block in guide.blocks(guide.section("Rights")) if block.language == "sh")
    for line in block.text.splitlines():
        if not line.startswith("acl --"):
            continue
        words = shlex.split(line)[1:]
        options = list(zip(words[::2], words[1::2], strict=True))
        given = dict(options)
        operation = AclOperation[given["--operation"].upper()]
        pattern = ResourcePatternType[given.get("--resource-pattern-type", "literal").upper()]
        found[line] = [
            AclBinding(kind, name, pattern, "User:downtick", "*", operation, AclPermissionType.ALLOW)
            for option, name in options
            if (kind := RESOURCES.get(option.removeprefix("--"))) is not None
        ]
        assert found[line], line
    return found


@dataclass
class Secured:
    """Both servers, and a folder in which a service finds the guide's settings and secrets."""

    broker: Broker  # the administrator's way in
    folder: Path
    produced: int = 0

    def service(self) -> Service:
        return Service(self.folder, {}, worker="one")

    def give(self, bindings: list[AclBinding]) -> None:
        for future in self.broker.admin.create_acls(bindings).values():
            future.result(30)

    def take(self, bindings: list[AclBinding]) -> None:
        filters = [
            AclBindingFilter(
                b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type
            )
            for b in bindings
        ]
        for future in self.broker.admin.delete_acls(filters).values():
            assert len(future.result(30)) == 1

    def produce(self, count: int) -> None:
        """Updates of one stock, each with an answer once there are 32, and one record that is none."""
        first, self.produced = self.produced, self.produced + count
        events = [
            Event(b"AAPL", json.dumps({"stock": "AAPL", "value": 100 + n % 7, "ts": T0 + n * 1000}).encode())
            for n in range(first, first + count)
        ]
        produce(self.broker.bootstrap_servers, "prices", [*events, Event(b"AAPL", b"none")])

    def all_answered(self) -> bool:
        return self.answers() == self.produced - 31

    def answers(self) -> int:
        return len(read(self.broker, "predictions"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    apache_kafka_or_skip()
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder / "authority")
    certificate, key = authority.sign("server")
    (folder / "keystore.pem").write_text(key.read_text() + certificate.read_text(), encoding="utf-8")
    secure, tls = free_port(), free_port()
    kafka = ApacheKafka(
        folder / "kafka",
        also=f"SASL_SSL://127.0.0.1:{secure}",
        options={
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # who comes over the plain listener: the administrator
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(folder / "keystore.pem"),
        },
    )
    redis = RedisServer(
        folder / "redis",
        *("--tls-port", str(tls), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(authority.certificate)),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
    )
    try:
        kafka.start()
        redis.start()
        broker = Broker(kafka.bootstrap_servers)
        for topic in TOPICS:
            broker.create_topic(topic, 1)
        home = folder / "service"
        home.mkdir()
        example = guide.examples()[0]
        places = {"kafka": f"127.0.0.1:{secure}", "redis": f"127.0.0.1:{tls}"}
        guide.write_secrets(home, **places)
        for name in ("kafka-ca.pem", "redis-ca.pem"):
            (home / name).write_bytes(authority.certificate.read_bytes())
        (home / "downtick.toml").write_text(guide.placed(example.toml, home, **places), encoding="utf-8")
        (home / ".env").write_text(guide.placed(example.dotenv, home, **places), encoding="utf-8")

        password = json.loads((home / "kafka-client.json").read_text(encoding="utf-8"))["sasl.password"]
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        user = UserScramCredentialUpsertion("downtick", scram, password.encode())
        for future in broker.admin.alter_user_scram_credentials([user]).values():
            future.result(30)
        page = (guide.GUIDE.parent / "decisions" / "store.md").read_text(encoding="utf-8").partition("**Rights")[2]
        commands = [word for block in re.findall(r"`([A-Z| \n]+)`", page) for word in block.split()]
        allowed = [f"+{command.lower()}" for command in commands]
        redis.call("ACL", "SETUSER", "downtick", "on", f">{password}", "resetkeys", "~downtick:*", "-@all", *allowed)
        yield Secured(broker, home)
    finally:
        kafka.close()
        redis.close()


@pytest.fixture(scope="module")
def worker(secured: Secured) -> Iterator[Service]:
    """A worker with all rights, that predicts."""
    for bindings in rights().values():
        secured.give(bindings)
    service = secured.service().start()
    try:
        secured.produce(40)
        service.wait_ready()
        wait_until(secured.all_answered, within=30, what=lambda: f"predictions\n{service.process.tail()}")
        yield service
    finally:
        service.close()


def test_there_are_four_rights() -> None:
    assert len(rights()) == 4
    assert sum(len(bindings) for bindings in rights().values()) == 5


def test_with_these_rights_and_secrets_alone_a_worker_predicts(secured: Secured, worker: Service) -> None:
    assert worker.ready
    assert worker.metric("predictions_published_total") == secured.answers() == 9
    assert worker.metric("dead_letters_total") == len(read(secured.broker, "prices.dead-letters")) == 1
    said = worker.log.read_text(encoding="utf-8")
    assert "a-password" not in said
    assert "denied" not in said.lower()
    assert "authoriz" not in said.lower()


@pytest.mark.parametrize(
    ("right", "name", "told"),
    [
        ("--operation Read --topic prices", "prices", "Topic authorization failed"),
        ("--operation Write --topic predictions", "predictions", "Topic authorization failed"),
        ("--operation Write --topic predictions", "prices.dead-letters", "Topic authorization failed"),
        ("--operation Read --group", "downtick", "Group authorization failed"),
        ("--operation Write --transactional-id", "downtick-", "Transactional Id authorization failed"),
    ],
)
def test_a_right_that_is_taken_away_is_named_and_nothing_is_lost(
    right: str, name: str, told: str, secured: Secured, worker: Service
) -> None:
    (line,) = (line for line in rights() if right in line)
    bindings = [binding for binding in rights()[line] if binding.name == name]
    secured.take(bindings)

    def denied() -> bool:
        """Brokers take a moment to forget a right: until then an update may still pass."""
        if told in worker.get("/ready")[1]:
            return True
        secured.produce(1)
        return False

    try:
        wait_until(
            denied, within=60, every=0.5, what=lambda: f"{told}: {worker.get('/ready')}\n{worker.process.tail()}"
        )
        assert worker.live
        secured.produce(3)
    finally:
        secured.give(bindings)
    wait_until(
        lambda: worker.ready and secured.all_answered(),
        within=60,
        what=lambda: f"predictions again: {worker.get('/ready')}\n{worker.process.tail()}",
    )


def test_without_the_transactional_id_a_worker_does_not_start(secured: Secured, worker: Service) -> None:
    worker.terminate()
    (line,) = (line for line in rights() if "--transactional-id" in line)
    secured.take(rights()[line])
    try:
        service = secured.service().start()
        assert service.process.wait(120) == 1
        assert "the brokers refuse a transactional producer" in service.process.tail()
        assert "Transactional Id authorization failed" in service.process.tail()
    finally:
        secured.give(rights()[line])
