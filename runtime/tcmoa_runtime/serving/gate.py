"""What all requests pass: access, one line for each error, headers, counts and the access log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tcmoa_runtime.log import get_logger
from tcmoa_runtime.serving.metrics import ServiceMetrics
from tcmoa_runtime.serving.work_queue import ClientGoneError, WorkQueue
from tcmoa_runtime.web.access import Access
from tcmoa_runtime.web.asgi import Gate, error_response, shown_path

CLIENT_GONE: Final = 499
"""Status under which a request is counted whose client has gone."""
LINGERING_SECONDS: Final = 2.0
"""Time for which the rest of a body is read and dropped that is too large, so that the client reads the answer."""
UNKNOWN_ROUTE: Final = "other"
_IS_BODY_READ: Final = "tcmoa.is_body_read"
"""Key of a request's scope: whether the end of its body was received, after which nothing more comes."""

_log = get_logger("service")


class ServiceGate(Gate):
    """ASGI middleware around the routes of the service, which counts and logs each request, too."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access | None,
        open_paths: frozenset[str],
        metrics: ServiceMetrics,
        queue: WorkQueue,
    ) -> None:
        """Wrap an application like `Gate`.

        Args:
            app: As of `Gate`.
            access: As of `Gate`.
            open_paths: As of `Gate`.
            metrics: Counts requests.
            queue: The queue of the service.
        """
        super().__init__(
            app, access=access, open_paths=open_paths, server="service", owner="service", log=_log
        )
        self._metrics, self._queue = metrics, queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_GONE

        async def receive_and_note() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                scope[_IS_BODY_READ] = True
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight += 1
        try:
            await super().__call__(scope, receive_and_note, send_and_note)
        finally:
            self._metrics.in_flight -= 1
            self._finish(scope, status, time.perf_counter() - start)

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Run the application; return the response to an error, None if there is none, or no client to read it."""
        try:
            return await super().respond(scope, receive, send)
        except asyncio.CancelledError:
            if not self._queue.is_closed:
                raise
            # By the server, when requests have not ended in time after a stop.
            return error_response(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "service: has stopped before the request had ended. Send it to another replica, or later.",
                {"Retry-After": "1", "Connection": "close"},
            )

    def answer(self, scope: Scope, error: Exception) -> Response | None:
        """Return the response to an error of the application; None if there is no client to read it."""
        return None if isinstance(error, ClientGoneError) else super().answer(scope, error)

    async def send_error(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to an error."""
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            await _send_and_drop_body(response, scope, receive, send)
        else:
            await super().send_error(response, scope, receive, send)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("tcmoa.route", UNKNOWN_ROUTE)
        method = scope["method"] if route != UNKNOWN_ROUTE else UNKNOWN_ROUTE
        self._metrics.add_request(method, route, status, seconds)
        if _log.isEnabledFor(logging.INFO):
            peer = scope["client"][0] if scope.get("client") else "-"
            milliseconds = round(1000 * seconds, 1)
            _log.info(
                "service: %s %s %s %d %.1f ms",
                peer,
                scope["method"],
                shown_path(scope),
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


async def _send_and_drop_body(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a response, and read and drop the rest of the body: a connection that is closed at once loses the answer."""

    async def send_without_end(message: Message) -> None:
        await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

    await response(scope, receive, send_without_end)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGERING_SECONDS):
            while not scope.get(_IS_BODY_READ) and (await receive())["type"] == "http.request":
                pass
    await send({"type": "http.response.body", "body": b""})
