"""Who may look and steer: on loopback whoever sits at the machine, elsewhere whoever has the token.

A web page of somebody else that is open in the same browser must not get in either way: a Host header that is not
ours (DNS rebinding) and an Origin that is not ours (cross-site requests, WebSockets) are refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.streams.page.address import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SAFE: Final = ("GET", "HEAD")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """`token` None lets everybody in who reaches a `loopback` address under a name of it."""

    loopback: bool
    token: str | None
    port: int

    @property
    def cookie(self) -> str:
        """Of a name by port: cookies know no ports, and several streams may run on one machine."""
        return f"tcmoa-token-{self.port}"

    def check(self, request: web.Request) -> None:
        """Raises HTTPForbidden or HTTPUnauthorized, with one line of reason, for whoever may not."""
        name = urlsplit(f"//{request.host}").hostname or ""
        if self.loopback and not is_loopback(name):
            raise web.HTTPForbidden(
                text=f"host is {name!r}: this page answers to localhost alone; bind it elsewhere with a token"
            )
        origin = request.headers.get("Origin")
        changes = request.method not in _SAFE or "Upgrade" in request.headers
        if changes and origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"origin is {origin!r}: other sites may not steer this stream")
        if self.token is not None and not self._has_token(request):
            raise web.HTTPUnauthorized(
                text="a token is needed: open the URL that `tcmoa stream` printed, or send Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def has_token_in_url(self, request: web.Request) -> bool:
        """Whether the right token stands in the URL, from where it should go."""
        return self._same(request.query.get("token"))

    def _has_token(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return (
            (scheme.lower() == "bearer" and self._same(given.strip()))
            or self._same(request.cookies.get(self.cookie))
            or self.has_token_in_url(request)
        )

    def _same(self, given: str | None) -> bool:
        return bool(given and self.token) and hmac.compare_digest(
            str(given).encode(), str(self.token).encode()
        )


def guard(access: Access) -> Any:
    """The middleware of all requests: access, headers, and errors as one line, JSON under /api."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access.check(request)
            response = await handler(request)
        except web.HTTPException as refusal:
            if refusal.status < 400:
                raise
            response = _told(request, refusal.status, refusal.text or refusal.reason)
            for name in ("WWW-Authenticate", "Allow"):
                if name in refusal.headers:
                    response.headers[name] = refusal.headers[name]
        except InputError as error:
            response = _told(request, 400, str(error))
        except TcmoaError as error:
            response = _told(request, 500, str(error))
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return guarded


def _told(request: web.Request, status: int, line: str) -> web.StreamResponse:
    line = line.splitlines()[0]
    if request.path.startswith("/api/"):
        return web.json_response({"error": line}, status=status)
    return web.Response(text=line + "\n", status=status)
