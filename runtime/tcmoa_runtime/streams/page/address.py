"""The address that the page listens on."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final, Self

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.interfaces import SinkError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
MAX_PORT: Final = 65_535
_BACKLOG: Final = 64


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a name or an IP address) and a TCP port; port 0 is any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse HOST, HOST:PORT, :PORT, PORT or [IPv6]:PORT; the defaults are 127.0.0.1 and 8080.

        Raises:
            InputError: The text is not an address.
        """
        if text.isdigit():
            host, port = "", text
        elif text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            port = rest[1:]
            if not bracket or (rest and not rest.startswith(":")):
                raise _not_an_address(text)
        elif text.count(":") > 1:
            host, port = text, ""
        else:
            host, _, port = text.partition(":")
        if port and not (port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
            raise _not_an_address(text)
        if any(character.isspace() or character in "/@" for character in host):
            raise _not_an_address(text)
        return cls(host or DEFAULT_HOST, int(port) if port else DEFAULT_PORT)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.host)

    def bind(self) -> socket.socket:
        """Return a listening socket.

        Raises:
            SinkError: The address is not one of this machine, is in use, or is not allowed.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot hold
            reason = getattr(error, "strerror", None) or error
            raise SinkError(
                f"{self.host} is not an address of this machine ({reason})", subject="page"
            ) from error
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise SinkError(
                f"cannot listen on {self}: {error.strerror}",
                subject="page",
                remedy="Choose another port, or 0 for any free port." if self.port else None,
            ) from error
        return listener

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or an IP address of the loopback interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_an_address(text: str) -> InputError:
    return InputError(
        f"{text!r}; expected HOST:PORT with a port of 0 to {MAX_PORT}, e.g. {DEFAULT_HOST}:{DEFAULT_PORT}",
        subject="page address",
    )
