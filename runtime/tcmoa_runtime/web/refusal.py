"""Answers to requests that are refused: one line, with security headers."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

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


def shorten_line(message: str) -> str:
    """Return a message as one line of at most `MAX_LINE` characters."""
    line = " ".join(message.split())
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 3] + "..."
