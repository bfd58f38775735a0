"""Free ports that stay free while a server is away: below the range that outgoing connections are given from."""

import os
import random
import socket

_rng = random.Random(os.getpid())
_given: set[int] = set()


def free_port() -> int:
    """A loopback port nobody listens on, never given twice by this process."""
    while True:
        port = _rng.randrange(17_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
