"""Names like a name, for "no such stock, did you mean": a bounded look at what the partitions hold."""

import difflib

from state.inspect import partitions
from state.store import RedisStore

MOST = 20_000  # names looked at: comparing that many takes a fifth of a second
PAGE = 5_000


def nearest(store: RedisStore, stock: str, limit: int = 5) -> list[str]:
    """Up to `limit` stocks of the store whose names resemble `stock`, the most alike first; itself if it is there.

    Of very many stocks only some are looked at. Raises: Unavailable, StoreRefused."""
    names = _names(store)
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.upper(), []).append(name)
    close = difflib.get_close_matches(stock.upper(), folded, n=limit, cutoff=0.5)
    return [name for match in close for name in folded[match]][:limit]


def _names(store: RedisStore) -> list[str]:
    names: dict[str, None] = {}
    for partition in partitions(store):
        meta = store.read_meta(partition)
        if meta is None:
            continue
        key, cursor = store.keys(partition).stocks(meta.generation), b"0"
        while len(names) < MOST:
            cursor, page = store.ask(partition, "SSCAN", key, cursor, "COUNT", PAGE)
            names.update(dict.fromkeys(name.decode("utf-8", "replace") for name in page))
            if cursor == b"0":
                break
    return list(names)[:MOST]
