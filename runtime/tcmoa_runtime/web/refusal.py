"""Answers to requests that are refused: one line, with security headers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from logging import Logger
from typing import Final

from tcmoa_runtime.errors import InputError, MemoryShortageError, TcmoaError

MAX_LINE: Final = 400
"""Characters of the line that answers an error; it repeats parts of the request."""
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response that does not set them itself."""


class RefusedError(Exception):
    """A request that is not served.

    Attributes:
        status: Status of the response.
        line: The line that says why.
        headers: Headers of the response, e.g. Retry-After.
    """

    def __init__(self, status: HTTPStatus, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status, self.line, self.headers = status, line, dict(headers or {})


def answer_to_error(
    error: Exception, *, server: str, owner: str, method: str, path: str, log: Logger
) -> RefusedError:
    """Return how a server answers an error of a handler; one that is not the client's is logged.

    Args:
        error: The error.
        server: What serves, for the log, e.g. `page`.
        owner: Whose log it is, for the client, e.g. `stream`.
        method: Method of the request.
        path: Its path, without the query, which may hold a token.
        log: Where the error is logged.
    """
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, InputError):
        return RefusedError(HTTPStatus.BAD_REQUEST, str(error))
    if isinstance(error, MemoryShortageError):
        return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "5"})
    fields = {"event": "request-failed", "method": method, "path": path}
    if isinstance(error, TcmoaError):
        log.error("%s: %s %s failed: %s", server, method, path, error, extra=fields)
        return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
    log.error("%s: %s %s failed", server, method, path, exc_info=error, extra=fields)
    line = f"internal error: {type(error).__name__}. The log of the {owner} has details."
    return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, line)


def shorten_line(message: str) -> str:
    """Return a message as one line of at most `MAX_LINE` characters."""
    line = " ".join(message.split())
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 3] + "..."
