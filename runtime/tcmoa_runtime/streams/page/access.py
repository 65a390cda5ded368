"""Access control: on loopback every program of this machine may connect, elsewhere a token is required.

A page of another site that is open in the same browser must not reach the stream either. Requests with a foreign Host
header (DNS rebinding) or a foreign Origin header (cross-site requests, WebSockets) are refused.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.streams.page.address import is_loopback

_SAFE_METHODS: Final = ("GET", "HEAD")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """Who may connect.

    Attributes:
        is_loopback: Whether the page listens on a loopback address.
        token: The required token; None admits everyone who can connect.
        port: Port of the page.
    """

    is_loopback: bool
    token: str | None
    port: int

    @property
    def cookie(self) -> str:
        """Name of the cookie with the token; it holds the port, because cookies are shared by all ports of a host."""
        return f"tcmoa-token-{self.port}"

    def check(self, request: web.Request) -> None:
        """Refuse a request that is not allowed.

        Raises:
            web.HTTPForbidden: The host or the origin is wrong.
            web.HTTPUnauthorized: The token is missing or wrong.
        """
        host = urlsplit(f"//{request.host}").hostname or ""
        if self.is_loopback and not is_loopback(host):
            raise web.HTTPForbidden(
                text=f"host: {host!r}; expected localhost, because this page is for this machine only. "
                "Serve it on another address, which requires a token."
            )
        origin = request.headers.get("Origin")
        may_change = request.method not in _SAFE_METHODS or "Upgrade" in request.headers
        if may_change and origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"origin: {origin!r}; other sites may not control this stream.")
        if self.token is not None and not self._has_token(request):
            raise web.HTTPUnauthorized(
                text="a token is required. Open the URL that `tcmoa stream` printed, or send the header "
                "`Authorization: Bearer TOKEN`.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def has_token_in_url(self, request: web.Request) -> bool:
        """Return whether the URL holds the right token."""
        return self._is_token(request.query.get("token"))

    def _has_token(self, request: web.Request) -> bool:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        return (
            (scheme.lower() == "bearer" and self._is_token(credentials.strip()))
            or self._is_token(request.cookies.get(self.cookie))
            or self.has_token_in_url(request)
        )

    def _is_token(self, text: str | None) -> bool:
        if not text or not self.token:
            return False
        return hmac.compare_digest(text.encode(), self.token.encode())


def access_middleware(access: Access) -> Middleware:
    """Return the middleware of all requests: checks access, adds headers, and turns errors into one line."""

    @web.middleware
    async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access.check(request)
            response = await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = _error_response(request, error.status, error.text or error.reason)
            for name in ("WWW-Authenticate", "Allow"):
                if name in error.headers:
                    response.headers[name] = error.headers[name]
        except InputError as error:
            response = _error_response(request, 400, str(error))
        except TcmoaError as error:
            response = _error_response(request, 500, str(error))
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return check_access


def _error_response(request: web.Request, status: int, message: str) -> web.StreamResponse:
    """Return one line, as JSON under /api."""
    line = message.splitlines()[0]
    if request.path.startswith("/api/"):
        return web.json_response({"error": line}, status=status)
    return web.Response(text=line + "\n", status=status)
