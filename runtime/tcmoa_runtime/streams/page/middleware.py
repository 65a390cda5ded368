"""The middleware of all requests: checks access, answers errors in one line, adds headers, and limits the time."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.streams.page.access import request_head
from tcmoa_runtime.streams.page.connections import Connection
from tcmoa_runtime.web import connections
from tcmoa_runtime.web.access import Access
from tcmoa_runtime.web.refusal import HEADERS, answer_to_error, shorten_line

_KEPT_HEADERS: Final = ("Allow", "Retry-After", "WWW-Authenticate")

_log = get_logger("page")


def page_middleware(access: Access) -> Middleware:
    """Return the middleware."""

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, Connection):
            raise TypeError(f"a connection of {type(connection)}")
        connection.begin_request()
        try:
            response = await _respond(access, request, handler)
            if not isinstance(response, web.WebSocketResponse):
                await _send(request, response)
            return response
        finally:
            connection.end_request()

    return handle


async def _respond(access: Access, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return the response of a handler, or one line for its error."""
    try:
        access.check(request_head(request, access))
        response = await handler(request)
    except web.HTTPException as error:
        response = _error_response(request, error.status, error.text or error.reason)
        for name in _KEPT_HEADERS:
            if name in error.headers:
                response.headers[name] = error.headers[name]
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:
        refused = answer_to_error(
            error, server="page", owner="stream", method=request.method, path=request.path, log=_log
        )
        response = _error_response(request, refused.status, refused.line)
        response.headers.update(refused.headers)
    if not response.prepared:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
    return response


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    """Send a response to a client that reads it in time; cut the connection of one that does not."""
    try:
        async with asyncio.timeout(connections.WRITE_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def _error_response(request: web.Request, status: int, message: str) -> web.Response:
    """Return one line, as JSON under /api."""
    line = shorten_line(message)
    if request.path.startswith("/api/"):
        return web.json_response({"error": line}, status=status)
    return web.Response(text=line.encode(errors="replace").decode() + "\n", status=status)
