"""Reading the body of a request: its size is checked before it is read, and its time is limited."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect, Request

from tcmoa_runtime.serving.work_queue import ClientGoneError
from tcmoa_runtime.web.refusal import RefusedError

BODY_SECONDS: Final = 20.0
"""Time for a body, from the end of its headers; what has arrived gives more, see `BYTES_PER_SECOND`."""
BYTES_PER_SECOND: Final = 64 << 10
"""Bytes for which there is one second more: slower clients would hold places in the queue."""


async def read_body(request: Request, max_bytes: int) -> memoryview:
    """Read the body of a request.

    Args:
        request: The request.
        max_bytes: Largest body.

    Raises:
        RefusedError: 413: it is too large. 415: it is compressed. 408: it is not complete in time. 400: its length is
            not a number.
        ClientGoneError: The client has gone.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"body: content encoding {encoding!r}; expected none."
        )
    length = _content_length(request)
    if length is not None and length > max_bytes:
        raise _too_large(f"{length} bytes", max_bytes)
    try:
        async with asyncio.timeout(BODY_SECONDS) as deadline:
            return await _read(request, length, max_bytes, deadline)
    except TimeoutError:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"body: has not arrived in time; expected it within {BODY_SECONDS:g} s, or {BYTES_PER_SECOND} bytes more "
            "for each second more.",
        ) from None
    except ClientDisconnect:
        raise ClientGoneError from None


async def _read(
    request: Request, length: int | None, max_bytes: int, deadline: asyncio.Timeout
) -> memoryview:
    start = asyncio.get_running_loop().time() + BODY_SECONDS
    if length is None:
        return memoryview(await _read_chunked(request, max_bytes, deadline, start))
    body = memoryview(bytearray(length))
    position = 0
    async with contextlib.aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            end = position + len(chunk)
            if end > length:
                raise _too_large("longer than its Content-Length", length)
            body[position:end] = chunk
            position = end
            deadline.reschedule(start + position / BYTES_PER_SECOND)
    return body[:position].toreadonly()


async def _read_chunked(
    request: Request, max_bytes: int, deadline: asyncio.Timeout, start: float
) -> bytearray:
    body = bytearray()
    async with contextlib.aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            if len(body) + len(chunk) > max_bytes:
                raise _too_large("longer than that", max_bytes)
            body += chunk
            deadline.reschedule(start + len(body) / BYTES_PER_SECOND)
    return body


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"Content-Length: {text!r}; expected a number of bytes.")
    return int(text)


def _too_large(what: str, max_bytes: int) -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"body: {what}; expected at most {max_bytes} bytes. Send smaller images or image files.",
        {"Connection": "close"},
    )
