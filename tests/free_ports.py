"""Free ports for programs that do not choose one themselves."""

import random
import socket
from pathlib import Path

_FIRST = 24_000
"""Above the ports that Ray takes for workers and for servers of clients."""
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_chosen = set()


def free_port():
    """Return a free port that the system gives to no connection, so that it stays free until a program listens on it.

    Listening on port 0 and closing would leave the port to the next connection of any other test.
    """
    last = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 1 << 15
    candidates = [port for port in range(_FIRST, last) if port not in _chosen]
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _chosen.add(port)
        return port
    raise OSError("no port is free")
