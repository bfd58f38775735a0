"""The store that the settings name; for commands that look into it, its failures as a command tells them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from consumer.cli_errors import CommandError
from state.store import RedisStore, StoreRefused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.settings import Settings


def store_of(settings: Settings) -> RedisStore:
    """The store that these settings name, not yet connected. Raises: StoreRefused."""
    return RedisStore(
        settings.redis.url.get_secret_value(),
        cluster=settings.redis.cluster,
        prefix=settings.redis.key_prefix,
        group=settings.kafka.group_id,
        topic=settings.kafka.input_topic,
    )


@contextmanager
def redis_store(settings: Settings) -> Iterator[RedisStore]:
    """The store of these settings; in the block `Unavailable` and `StoreRefused` become a CommandError."""
    store = None
    try:
        store = store_of(settings)
        yield store
    except Unavailable as error:
        raise CommandError(str(error), hint=f"is it running? redis.url is {settings.redis.address}") from error
    except StoreRefused as error:
        raise CommandError(str(error), hint=f"redis.url is {settings.redis.address}") from error
    finally:
        if store is not None:
            store.close()


def nothing_here(settings: Settings) -> CommandError:
    """There are no keys of this group and topic: what was looked for, and where."""
    return CommandError(
        f"Redis at {settings.redis.address} holds nothing of group {settings.kafka.group_id!r} "
        f"and topic {settings.kafka.input_topic!r}",
        hint="has the service run with these settings? redis.key_prefix is "
        f"{settings.redis.key_prefix!r}; all of them must be the service's",
    )
