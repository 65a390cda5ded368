"""Access control: on loopback every program of this machine may connect, elsewhere a token is required.

A page of another site that is open in the same browser must not reach a server either. Requests with a foreign Host
header (DNS rebinding) or a foreign Origin header (cross-site requests, WebSockets) are refused.
"""

from __future__ import annotations

import hmac
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.web.address import is_loopback
from tcmoa_runtime.web.connections import client_network
from tcmoa_runtime.web.refusal import RefusedError

MIN_TOKEN_LENGTH: Final = 8
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~-]{{{MIN_TOKEN_LENGTH},}}")
"""Characters that need no escaping in URLs, cookies and headers."""

COOKIE_SECONDS: Final = 7 * 24 * 3600
"""How long a browser keeps the token."""

MAX_WRONG_TOKENS: Final = 20
"""Wrong tokens that an address may send within `WRONG_TOKEN_SECONDS`; then all of its requests are refused."""
WRONG_TOKEN_SECONDS: Final = 60.0
MAX_NETWORKS: Final = 1024
"""Addresses whose wrong tokens are remembered; the one that is quiet for longest is forgotten first."""

_SAFE_METHODS: Final = ("GET", "HEAD")


class WrongTokens:
    """Limits how many wrong tokens an address may send."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember none; `clock` returns seconds."""
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def seconds_left(self, network: str) -> int:
        """Return for how many seconds the requests of an address are refused; 0 if they are not."""
        times = self._times.get(network)
        if times is None:
            return 0
        now = self._clock()
        while times and times[0] <= now - WRONG_TOKEN_SECONDS:
            times.popleft()
        if len(times) < MAX_WRONG_TOKENS:
            return 0
        return max(1, math.ceil(times[0] + WRONG_TOKEN_SECONDS - now))

    def add(self, network: str) -> None:
        """Remember a wrong token."""
        times = self._times.pop(network, deque(maxlen=MAX_WRONG_TOKENS))
        times.append(self._clock())
        self._times[network] = times  # the last one in the order of the dictionary
        if len(self._times) > MAX_NETWORKS:
            del self._times[next(iter(self._times))]


def choose_token(token: str | None, *, is_loopback: bool) -> str | None:
    """Return the token that a server requires: the given one, or a new one if its address is not on loopback.

    Args:
        token: The token that the user chose; None if there is none.
        is_loopback: Whether the server listens on a loopback address.

    Raises:
        InputError: The token is too short, or has other characters than those of a URL.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        noun = "character" if len(token) == 1 else "characters"
        raise InputError(
            f"{len(token)} {noun}; expected {MIN_TOKEN_LENGTH} or more, of letters, digits, - . _ and ~",
            subject="token",
        )
    return token if token or is_loopback else secrets.token_urlsafe(16)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestHead:
    """What access depends on of a request.

    Attributes:
        method: The HTTP method.
        host: The Host header; empty if there is none.
        origin: The Origin header.
        is_upgrade: Whether there is an Upgrade header.
        authorization: The Authorization header; empty if there is none.
        cookie_token: The token in the server's cookie; empty if there is none.
        query_token: The token in the URL; empty if there is none.
        peer: Address of the other end of the connection, (host, port, ...).
    """

    method: str
    host: str
    origin: str | None
    is_upgrade: bool
    authorization: str
    cookie_token: str
    query_token: str
    peer: object


@dataclass(frozen=True)
class Access:
    """Who may connect.

    Attributes:
        is_loopback: Whether the server listens on a loopback address.
        token: The required token; None admits everyone who can connect.
        port: Port of the server.
        subject: What is served, e.g. "page", for messages.
        use: What other sites may not do with it, e.g. "control this stream", for messages.
        token_hint: A sentence that says where the token is found.
        wrong_tokens: Wrong tokens of the last minute, by address.
    """

    is_loopback: bool
    token: str | None
    port: int
    subject: str
    use: str
    token_hint: str
    wrong_tokens: WrongTokens = field(default_factory=WrongTokens)

    @property
    def cookie(self) -> str:
        """Name of the cookie with the token; it holds the port, because cookies are shared by all ports of a host."""
        return f"tcmoa-token-{self.port}"

    def head_of(
        self,
        *,
        method: str,
        headers: Mapping[str, str],
        cookies: Mapping[str, str],
        query: Mapping[str, str],
        peer: object,
    ) -> RequestHead:
        """Return what access depends on of the parts of a request.

        Args:
            method: The HTTP method.
            headers: The headers; a name is found in any case.
            cookies: The cookies.
            query: The query of the URL.
            peer: Address of the other end of the connection, (host, port, ...).
        """
        return RequestHead(
            method=method,
            host=headers.get("host", ""),
            origin=headers.get("origin"),
            is_upgrade="upgrade" in headers,
            authorization=headers.get("authorization", ""),
            cookie_token=cookies.get(self.cookie, ""),
            query_token=query.get("token", ""),
            peer=peer,
        )

    def check(self, request: RequestHead) -> None:
        """Refuse a request that is not allowed.

        Raises:
            RefusedError: With status 400 the Host header is not one, with 403 the host or the origin is wrong, with 401
                the token is missing or wrong, with 429 the address has sent too many wrong tokens.
        """
        self._check_host(request)
        self._check_origin(request)
        if self.token is not None:
            self._check_token(request)

    def _check_host(self, request: RequestHead) -> None:
        try:
            host = urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, f"host: {request.host!r}; expected a name or an address."
            ) from None
        if self.is_loopback and not is_loopback(host):
            raise RefusedError(
                HTTPStatus.FORBIDDEN,
                f"host: {host!r}; expected localhost, because this {self.subject} is for this machine only. "
                "Serve it on another address, which requires a token.",
            )

    def _check_origin(self, request: RequestHead) -> None:
        origin = request.origin
        may_change = request.method not in _SAFE_METHODS or request.is_upgrade
        if not may_change or origin is None:
            return
        try:
            is_own = urlsplit(origin).netloc == request.host
        except ValueError:
            is_own = False
        if not is_own:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"origin: {origin!r}; other sites may not {self.use}.")

    def _check_token(self, request: RequestHead) -> None:
        network = client_network(request.peer)
        seconds = self.wrong_tokens.seconds_left(network)
        if seconds:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"token: {MAX_WRONG_TOKENS} wrong ones from your address. Try again in {seconds} s.",
                {"Retry-After": str(seconds)},
            )
        tokens = _tokens_of(request)
        if any(map(self.is_token, tokens)):
            return
        if tokens:
            self.wrong_tokens.add(network)
        raise RefusedError(
            HTTPStatus.UNAUTHORIZED,
            f"a token is required. {self.token_hint}, or send the header `Authorization: Bearer TOKEN`.",
            {"WWW-Authenticate": "Bearer"},
        )

    def is_token(self, text: str) -> bool:
        """Return whether a text is the required token, in a time that says nothing about it."""
        if not text or not self.token:
            return False
        # surrogateescape: a header may hold bytes that are not UTF-8.
        return hmac.compare_digest(text.encode(errors="surrogateescape"), self.token.encode())


def _tokens_of(request: RequestHead) -> list[str]:
    """Return the tokens that a request presents: in a header, the cookie and the URL."""
    scheme, _, credentials = request.authorization.partition(" ")
    bearer = credentials.strip() if scheme.lower() == "bearer" else ""
    return [token for token in (bearer, request.cookie_token, request.query_token) if token]
