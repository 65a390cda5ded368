"""Where the page listens."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final, Self

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.interfaces import SinkError

DEFAULT_PORT: Final = 8080
_HIGHEST_PORT: Final = 65_535
_BACKLOG: Final = 64


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a name or an IP address) and a TCP port; port 0 takes any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """HOST, HOST:PORT, :PORT, PORT or [IPv6]:PORT; 127.0.0.1 and 8080 where something is left out.

        Raises InputError.
        """
        if text.isdigit():
            host, port = "", text
        elif text.startswith("["):
            host, closed, rest = text[1:].partition("]")
            port = rest[1:]
            if not closed or (rest and not rest.startswith(":")):
                raise InputError(f"page address is {text!r}: expected HOST:PORT, as 127.0.0.1:8080")
        elif text.count(":") > 1:
            host, port = text, ""
        else:
            host, _, port = text.partition(":")
        if port and not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
            raise InputError(
                f"page address is {text!r}: expected HOST:PORT with a port of 0 to {_HIGHEST_PORT}, as 127.0.0.1:8080"
            )
        if any(character.isspace() or character in "/@" for character in host):
            raise InputError(f"page address is {text!r}: expected HOST:PORT, as 127.0.0.1:8080")
        return cls(host or "127.0.0.1", int(port) if port else DEFAULT_PORT)

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine get there."""
        return is_loopback(self.host)

    def bind(self) -> socket.socket:
        """A listening socket; raises SinkError when the place is taken, not this machine's or not allowed."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:  # the latter for names that no DNS could hold
            raise SinkError(
                f"page: {self.host}: is no address of this machine ({getattr(error, 'strerror', None) or error})"
            ) from error
        family, kind, protocol, _, place = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            hint = "; take another port, or 0 for any" if self.port else ""
            raise SinkError(f"page: cannot listen on {self}: {error.strerror}{hint}") from error
        return listening

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or an IP address of this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
