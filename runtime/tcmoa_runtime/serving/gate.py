"""What all requests pass: access, one line for each error, headers, counts and the access log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tcmoa_runtime.errors import InputError, MemoryShortageError, TcmoaError
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.serving.metrics import ServiceMetrics
from tcmoa_runtime.serving.routes import ROUTES
from tcmoa_runtime.serving.work_queue import ClientGoneError, WorkQueue
from tcmoa_runtime.web.access import COOKIE_SECONDS, Access, RequestHead
from tcmoa_runtime.web.refusal import HEADERS, RefusedError, shorten_line

CLIENT_GONE: Final = 499
"""Status under which a request is counted whose client has gone."""
LINGERING_SECONDS: Final = 2.0
"""Time for which the rest of a body is read and dropped that is too large, so that the client reads the answer."""
UNKNOWN_ROUTE: Final = "other"

_log = get_logger("service")


def request_head(scope: Scope, access: Access) -> RequestHead:
    """Return what access depends on of a request."""
    request = Request(scope)
    headers = request.headers
    return RequestHead(
        method=scope["method"],
        host=headers.get("host", ""),
        origin=headers.get("origin"),
        is_upgrade="upgrade" in headers,
        authorization=headers.get("authorization", ""),
        cookie_token=request.cookies.get(access.cookie, ""),
        query_token=request.query_params.get("token", ""),
        peer=tuple(scope["client"]) if scope.get("client") else None,
    )


class Gate:
    """ASGI middleware around the routes of the service."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access | None,
        metrics: ServiceMetrics,
        queue: WorkQueue,
        open_paths: frozenset[str],
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            access: Who may connect; None leaves that to whoever mounts the application.
            metrics: Counts requests.
            queue: The queue of the service.
            open_paths: Paths that need no token.
        """
        self._app, self._access, self._open = app, access, open_paths
        self._metrics, self._queue = metrics, queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_GONE
        has_begun = False

        async def send_message(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in _HEADERS if name not in given),
                ]
            await send(message)

        self._metrics.in_flight += 1
        try:
            response = await self._respond(scope, receive, send_message)
            if response is not None and not has_begun:
                if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                    await _send_and_drop_body(response, scope, receive, send_message)
                else:
                    await response(scope, receive, send_message)
        finally:
            self._metrics.in_flight -= 1
            self._finish(scope, status, time.perf_counter() - start)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Run the application; return the response to an error, None if there is none, or no client to read it."""
        try:
            if self._access is not None and scope["path"] not in self._open:
                self._access.check(request_head(scope, self._access))
            await self._app(scope, receive, send)
        except ClientGoneError:
            return None
        except asyncio.CancelledError:
            if not self._queue.is_closed:
                raise
            # By the server, when requests have not ended in time after a stop.
            return error_response(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "service: has stopped before the request had ended. Send it to another replica, or later.",
                {"Retry-After": "1", "Connection": "close"},
            )
        except RefusedError as refused:
            return error_response(refused.status, refused.line, refused.headers)
        except InputError as error:
            return error_response(HTTPStatus.BAD_REQUEST, str(error))
        except MemoryShortageError as error:
            return error_response(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "5"})
        except TcmoaError as error:
            _log.error("service: %s failed: %s", _shown(scope), error, extra={"event": "request-failed"})
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception as error:
            _log.error("service: %s failed", _shown(scope), exc_info=error, extra={"event": "request-failed"})
            line = f"internal error: {type(error).__name__}. The log of the service has details."
            return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, line)
        return None

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("tcmoa.route", UNKNOWN_ROUTE)
        method = scope["method"] if route != UNKNOWN_ROUTE else UNKNOWN_ROUTE
        self._metrics.add_request(method, route, status, seconds)
        if _log.isEnabledFor(logging.INFO):
            peer = scope["client"][0] if scope.get("client") else "-"
            milliseconds = round(1000 * seconds, 1)
            _log.info(
                "service: %s %s %d %.1f ms",
                peer,
                _shown(scope),
                status,
                milliseconds,
                extra={
                    "event": "request",
                    "peer": peer,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "ms": milliseconds,
                },
            )


def _shown(scope: Scope) -> str:
    """Return the method and the path of a request, without its query, which may hold the token."""
    path = scope["path"].encode("unicode_escape").decode()
    return f"{scope['method']} {path}"


def move_token(request: Request, access: Access) -> Response | None:
    """Return the response to a token in the URL; None without the right one.

    It moves the token from the address bar and the history into a cookie that scripts cannot read.
    """
    if not access.is_token(request.query_params.get("token", "")):
        return None
    response = RedirectResponse(request.url.path, HTTPStatus.SEE_OTHER)
    response.set_cookie(
        access.cookie, access.token or "", max_age=COOKIE_SECONDS, httponly=True, samesite="strict"
    )
    return response


def error_response(status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    """Return one line as JSON."""
    text = shorten_line(line).encode(errors="replace").decode()
    return JSONResponse({"error": text}, status, headers)


async def http_error(_: Request, error: Exception) -> Response:
    """Answer an error of the router: no such path, or another method."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        line = f"method: not one of this route; expected {allowed}."
    else:
        line = f"path: no such route; expected one of {', '.join(route.path for route in ROUTES)}"
    return error_response(error.status_code, line, dict(error.headers or {}))


async def _send_and_drop_body(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response, and read and drop the rest of the body: a connection that is closed at once loses the answer."""

    async def send_without_end(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response(scope, receive, send_without_end)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGERING_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b""})


_HEADERS: Final = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
