"""The two ways in which Redis can fail us, named by what the caller does next."""


class Unavailable(Exception):
    """Not now: Redis is away, full, loading, failing over, or was too slow. Keep what is pending and call again later.

    Whether the call has landed is unknown: every call of `state` may be repeated as it was."""


class StoreRefused(Exception):
    """Never, as things are configured: wrong password or rights, a Redis that evicts, that is too old, that is
    not a cluster (or is one), that answers what nobody foresaw. Stop and let someone look."""
