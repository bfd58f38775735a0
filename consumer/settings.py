"""Settings: everything that can be set, as one frozen model. `settings_sources` reads it from the outside."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args, get_origin
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from consumer.kafka_options import REFUSED, REFUSED_WITH_KIP_848, is_secret, names_something_public

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PREFIX = "DOWNTICK_"

_NAME = r"^[A-Za-z0-9._-]+$"  # pydantic's $ is the very end, no newline may follow


def _known_topic_name(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError("a topic cannot be named . or ..")
    return name


def _flat(table: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """`sasl.username = "x"`, which TOML reads as a table in a table, under its whole name."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _options(value: object) -> Mapping[str, str | SecretStr]:
    """Options for librdkafka, all as text; what looks like a secret is wrapped before anybody can print it."""
    if not isinstance(value, Mapping):
        raise ValueError("must be an object of librdkafka options: JSON in the environment, a table in TOML")  # noqa: TRY004 - pydantic collects ValueError
    options: dict[str, str | SecretStr] = {}
    for name, given in _flat(value):
        if name in REFUSED:
            raise ValueError(f"{name} cannot be set: {REFUSED[name]}")
        if name.endswith("_cb"):
            raise ValueError(f"{name} cannot be set: a callback is code, not a setting")
        if isinstance(given, SecretStr):
            text = given.get_secret_value()
        elif isinstance(given, bool):
            text = str(given).lower()
        elif isinstance(given, str | int | float):
            text = str(given)
        else:
            raise ValueError(f"{name} must be text, a number or true/false")  # noqa: TRY004 - as above
        options[name] = SecretStr(text) if is_secret(name) else text
    return options


Name = Annotated[str, Field(pattern=_NAME, max_length=200)]
Topic = Annotated[str, Field(pattern=_NAME, max_length=249), AfterValidator(_known_topic_name)]
Options = Annotated[Mapping[str, str | SecretStr], BeforeValidator(_options)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Kafka(_Group):
    """Where the log is, and what this group is called there."""

    bootstrap_servers: str = Field(
        default="localhost:9092", min_length=1, description="brokers to ask first, host:port,…"
    )
    group_id: Name = Field(
        default="downtick", description="consumer group; part of the Redis keys and transactional ids"
    )
    input_topic: Topic = Field(default="prices", description="topic of the updates")
    output_topic: Topic = Field(default="predictions", description="topic of the predictions")
    dead_letter_topic: Topic = Field(
        default="prices.dead-letters", description="topic of the updates that broke a rule"
    )
    start: Literal["earliest", "latest"] = Field(default="earliest", description="where a group without offsets starts")
    static_membership: bool = Field(
        default=False,
        description="keep a worker's place in the group over its restart (group.instance.id = worker)",
    )
    client: Options = Field(default_factory=dict, description="librdkafka options of every client: TLS, SASL …")
    consumer: Options = Field(default_factory=dict, description="librdkafka options of the consumer")
    producer: Options = Field(default_factory=dict, description="librdkafka options of the producer")

    @property
    def kip_848(self) -> bool:
        """Whether the broker assigns the partitions (group.protocol=consumer)."""
        return (self._consumer_option("group.protocol") or "").lower() == "consumer"

    @property
    def incremental(self) -> bool:
        """Whether a rebalance takes and gives single partitions (cooperative, KIP-848) instead of all (eager)."""
        strategy = self._consumer_option("partition.assignment.strategy")
        return self.kip_848 or strategy is None or strategy.strip().lower().startswith("cooperative")

    def _consumer_option(self, name: str) -> str | None:
        given = {**self.client, **self.consumer}.get(name)
        return given.get_secret_value() if isinstance(given, SecretStr) else given

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        topics = [self.input_topic, self.output_topic, self.dead_letter_topic]
        if len(set(topics)) < len(topics):
            raise ValueError(
                "input_topic, output_topic and dead_letter_topic must differ: the service would read its own output"
            )
        return self

    @model_validator(mode="after")
    def _kip_848_alone(self) -> Self:
        clashing = sorted(REFUSED_WITH_KIP_848 & {**self.client, **self.consumer}.keys()) if self.kip_848 else []
        if clashing:
            raise ValueError(
                f"{', '.join(clashing)} cannot be set with group.protocol=consumer: there the broker decides"
            )
        return self


class Redis(_Group):
    """Where the histories are kept."""

    url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"), description="redis://, rediss:// for TLS, or unix://"
    )
    cluster: bool = Field(default=False, description="the address is a node of a Redis Cluster")
    key_prefix: Name = Field(default="downtick", description="first part of every key")

    @property
    def address(self) -> str:
        """The address as it may be shown: without user, password and query."""
        parts = urlsplit(self.url.get_secret_value())
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(url.get_secret_value())
            # An unescaped # or ? in a password would end the host there, and the rest be taken for something else.
            whole = "@" not in parts.path + parts.query + parts.fragment and not parts.fragment
            legal = whole and (parts.port is None or parts.port > 0)
        except ValueError:  # its text may hold the password
            legal = False
        if not legal:
            raise ValueError(
                "is not an address: expected redis://user:password@host:port/0, with reserved characters as %XX"
            ) from None
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if parts.scheme != "unix" and not parts.hostname:
            raise ValueError("needs a host, as in redis://localhost:6379/0")
        if parts.scheme == "unix" and not parts.path:
            raise ValueError("unix:// needs the path of a socket")
        if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
            raise ValueError("must end in the number of a database, as in redis://localhost:6379/0")
        return url

    @model_validator(mode="after")
    def _cluster_has_one_database(self) -> Self:
        parts = urlsplit(self.url.get_secret_value())
        if self.cluster and (parts.scheme == "unix" or parts.path.strip("/") not in {"", "0"}):
            raise ValueError("a cluster has a host and port and one database: redis://host:port/0")
        return self


class Model(_Group):
    """Which bundle predicts."""

    path: Path = Field(
        default_factory=lambda: Path(str(files("model"))) / "bundles" / "default",
        description="a bundle folder, or a folder of versions (default: the bundle that ships with the package)",
    )


class History(_Group):
    """How much is kept of each stock."""

    depth: int = Field(default=128, ge=1, le=65_536, description="values kept for each stock in Redis")
    max_stocks: int = Field(default=1_000_000, ge=1, description="stocks on one partition")


class Batch(_Group):
    """When a batch closes."""

    # 65,536: predictions and dead letters of one transaction must fit librdkafka's queue of 100,000 messages.
    max_events: int = Field(default=4096, ge=1, le=65_536, description="records in one batch, and one transaction")
    max_wait: float = Field(
        default=0.0, ge=0, le=5, allow_inf_nan=False, description="seconds to linger after the first record of a batch"
    )


class Restore(_Group):
    """How far a rebuild goes back."""

    max_records: int = Field(
        default=5_000_000, ge=1, description="records of a partition read again to rebuild its histories"
    )


class DeadLetters(_Group):
    """When a partition is stopped for its producer's sake."""

    max_consecutive: int = Field(default=10_000, ge=1, description="dead letters in a row before a partition is paused")


class Events(_Group):
    """What an update may look like."""

    max_bytes: int = Field(default=65_536, ge=64, le=10_000_000, description="size of an update's value")
    max_ahead: Seconds = Field(
        default=86_400.0, description="seconds that ts may lie past the record's Kafka timestamp"
    )


class Http(_Group):
    """Where /metrics, /live and /ready are served."""

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every one")
    port: int = Field(default=8000, ge=0, le=65_535, description="port to listen on; 0 for a free one")


def _default_worker(validated: dict[str, Any]) -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:180]
    return f"{host}-{validated['http'].port}"


class Settings(BaseSettings):
    """Everything that can be set, validated, frozen. Groups are fields; a setting is named `group.name`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    model: Model = Model()
    history: History = History()
    batch: Batch = Batch()
    restore: Restore = Restore()
    dead_letters: DeadLetters = DeadLetters()
    events: Events = Events()
    http: Http = Http()
    # Last: its default needs the port.
    worker: Name = Field(
        default_factory=_default_worker,
        description="stable name of this worker, unique among live ones; part of the transactional id "
        "(default: host name and http.port)",
    )

    @model_validator(mode="after")
    def _workers_have_names(self) -> Self:
        if self.http.port == 0 and "worker" not in self.model_fields_set:
            raise ValueError(
                "worker must be set when http.port is 0: its default tells workers of one host apart by port"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what is passed in: a `Settings(...)` in a test sees nothing of the machine."""
        return (init_settings,)

    def secrets(self) -> frozenset[str]:
        """Every secret in clear text, for whoever must keep them out of a text."""
        url = self.redis.url.get_secret_value()
        password = urlsplit(url).password
        found = {password, unquote(password)} if password else set()
        if password or urlsplit(url).query:
            found.add(url)
        for options in (self.kafka.client, self.kafka.consumer, self.kafka.producer):
            found.update(
                option.get_secret_value()
                for name, option in options.items()
                if isinstance(option, SecretStr) and not names_something_public(name)
            )
        return frozenset(found)


def setting_fields() -> dict[str, FieldInfo]:
    """Every setting by its dotted name, as `kafka.group_id`, in the order of the model."""
    return dict(_leaves(Settings, ""))


def _leaves(model: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{path}{name}.")
        else:
            yield path + name, field


def holds_options(field: FieldInfo) -> bool:
    """Whether a setting is an object of librdkafka options."""
    return get_origin(field.annotation) is Mapping or Mapping in get_args(field.annotation)


def variable_name(setting: str) -> str:
    """The environment variable of a setting: `kafka.group_id` → `DOWNTICK_KAFKA__GROUP_ID`."""
    return PREFIX + setting.replace(".", "__").upper()
