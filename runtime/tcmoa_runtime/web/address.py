"""The address that a server listens on."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final, Self

from tcmoa_runtime.errors import InputError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8080
OFF: Final = "off"
"""Address of a page that is not served."""
MAX_PORT: Final = 65_535
_PORT: Final = re.compile(r"[0-9]{1,5}")
_BACKLOG: Final = 64


class ListenError(InputError):
    """An address cannot be listened on: it is not one of this machine, is in use, or is not allowed."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a name or an IP address) and a TCP port; port 0 is any free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, subject: str, default_port: int = DEFAULT_PORT) -> Self:
        """Parse HOST, HOST:PORT, :PORT, PORT or [IPv6]:PORT; the default host is 127.0.0.1.

        Args:
            text: The address.
            subject: What it is, for messages.
            default_port: The port where the text has none.

        Raises:
            InputError: The text is not an address.
        """
        wrong = InputError(
            f"{text!r}; expected HOST:PORT with a port of 0 to {MAX_PORT}, e.g. {DEFAULT_HOST}:{default_port}",
            subject=subject,
        )
        if text.isdigit():
            host, port = "", text
        elif text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            port = rest[1:]
            if not host or not bracket or (rest and not rest.startswith(":")):
                raise wrong
        elif text.count(":") > 1:
            host, port = text, ""
        else:
            host, _, port = text.partition(":")
        if not host and not port:
            raise wrong
        if port and not (_PORT.fullmatch(port) and int(port) <= MAX_PORT):
            raise wrong
        if any(not c.isprintable() or c.isspace() or c in "/@" for c in host):
            raise wrong
        return cls(host or DEFAULT_HOST, int(port) if port else default_port)

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return is_loopback(self.host)

    @property
    def url_host(self) -> str:
        """The host as others can name it in a URL: the name of this machine for an address that means all of them."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        return f"[{host}]" if ":" in host else host

    def bind(self, *, subject: str) -> socket.socket:
        """Return a listening socket.

        Args:
            subject: What listens, for messages.

        Raises:
            ListenError: The address is not one of this machine, is in use, or is not allowed.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot hold
            reason = getattr(error, "strerror", None) or error
            raise ListenError(
                f"{self.host} is not an address of this machine ({reason}); expected its name or IP address",
                subject=subject,
            ) from error
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise ListenError(
                f"cannot listen on {self}: {error.strerror}",
                subject=subject,
                remedy="Choose another port, or 0 for any free port." if self.port else None,
            ) from error
        return listener

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_page(text: str, *, default_port: int = DEFAULT_PORT) -> Address | None:
    """Parse the address of a page; `off` is None.

    Args:
        text: The address, as `Address.parse` takes it, or `off`.
        default_port: The port where the text has none.

    Raises:
        InputError: The text is neither; the subject is `page`.
    """
    if text == OFF:
        return None
    try:
        address = Address.parse(text, subject="page", default_port=default_port)
    except InputError as error:
        raise InputError(f"{error.problem}, or {OFF}", subject="page") from None
    if address.host.lower() == OFF:
        raise InputError(f"{text!r}; expected HOST:PORT, or {OFF}", subject="page")
    return address


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or an IP address of the loopback interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
