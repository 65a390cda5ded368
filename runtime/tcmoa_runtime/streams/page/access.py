"""Access control: on loopback every program of this machine may connect, elsewhere a token is required.

A page of another site that is open in the same browser must not reach the stream either. Requests with a foreign Host
header (DNS rebinding) or a foreign Origin header (cross-site requests, WebSockets) are refused.
"""

from __future__ import annotations

import hmac
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from tcmoa_runtime.streams.page.address import is_loopback
from tcmoa_runtime.streams.page.connections import client_network

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


@dataclass(frozen=True)
class Access:
    """Who may connect.

    Attributes:
        is_loopback: Whether the page listens on a loopback address.
        token: The required token; None admits everyone who can connect.
        port: Port of the page.
        wrong_tokens: Wrong tokens of the last minute, by address.
    """

    is_loopback: bool
    token: str | None
    port: int
    wrong_tokens: WrongTokens = field(default_factory=WrongTokens)

    @property
    def cookie(self) -> str:
        """Name of the cookie with the token; it holds the port, because cookies are shared by all ports of a host."""
        return f"tcmoa-token-{self.port}"

    def check(self, request: web.Request) -> None:
        """Refuse a request that is not allowed.

        Raises:
            web.HTTPBadRequest: The Host header is not one.
            web.HTTPForbidden: The host or the origin is wrong.
            web.HTTPUnauthorized: The token is missing or wrong.
            web.HTTPTooManyRequests: The address has sent too many wrong tokens.
        """
        self._check_host(request)
        self._check_origin(request)
        if self.token is not None:
            self._check_token(request)

    def has_token_in_url(self, request: web.Request) -> bool:
        """Return whether the URL holds the right token."""
        return self._is_token(request.query.get("token", ""))

    def _check_host(self, request: web.Request) -> None:
        header = request.headers.get("Host", "")
        try:
            host = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            raise web.HTTPBadRequest(text=f"host: {header!r}; expected a name or an address.") from None
        if self.is_loopback and not is_loopback(host):
            raise web.HTTPForbidden(
                text=f"host: {host!r}; expected localhost, because this page is for this machine only. "
                "Serve it on another address, which requires a token."
            )

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        may_change = request.method not in _SAFE_METHODS or "Upgrade" in request.headers
        if not may_change or origin is None:
            return
        try:
            is_own = urlsplit(origin).netloc == request.headers.get("Host", "")
        except ValueError:
            is_own = False
        if not is_own:
            raise web.HTTPForbidden(text=f"origin: {origin!r}; other sites may not control this stream.")

    def _check_token(self, request: web.Request) -> None:
        transport = request.transport
        network = client_network(transport.get_extra_info("peername") if transport is not None else None)
        seconds = self.wrong_tokens.seconds_left(network)
        if seconds:
            raise web.HTTPTooManyRequests(
                text=f"token: {MAX_WRONG_TOKENS} wrong ones from your address. Try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )
        tokens = self._tokens_of(request)
        if any(map(self._is_token, tokens)):
            return
        if tokens:
            self.wrong_tokens.add(network)
        raise web.HTTPUnauthorized(
            text="a token is required. Open the URL that `tcmoa stream` printed, or send the header "
            "`Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _tokens_of(self, request: web.Request) -> list[str]:
        """Return the tokens that a request presents: in a header, the cookie and the URL."""
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        tokens = (
            credentials.strip() if scheme.lower() == "bearer" else "",
            request.cookies.get(self.cookie, ""),
            request.query.get("token", ""),
        )
        return [token for token in tokens if token]

    def _is_token(self, text: str) -> bool:
        if not text or not self.token:
            return False
        # surrogateescape: a header may hold bytes that are not UTF-8.
        return hmac.compare_digest(text.encode(errors="surrogateescape"), self.token.encode())
