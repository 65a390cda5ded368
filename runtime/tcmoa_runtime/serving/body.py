"""Reading the body of a request: its size is checked before it is read, and its time is limited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Final

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.serving.work_queue import ClientGoneError
from tcmoa_runtime.web.refusal import RefusedError

MIN_BYTES_PER_SECOND: Final = 64 << 10
"""Slowest rate of a body that is waited for, after `BODY_SECONDS`."""
BODY_SECONDS: Final = 20.0
"""Time for a body, from the end of its headers, before its rate counts."""
_CHUNK: Final = 1 << 20


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
    seconds = BODY_SECONDS + (length or max_bytes) / MIN_BYTES_PER_SECOND
    try:
        async with asyncio.timeout(seconds):
            return await _read(request, length, max_bytes)
    except TimeoutError:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"body: not complete within {seconds:g} seconds."
        ) from None
    except ClientDisconnect:
        raise ClientGoneError from None


async def parse_form(request: Request, body: memoryview) -> FormData:
    """Parse a form with files, all of it in memory.

    Raises:
        RefusedError: 415: the body is no form.
        InputError: The form is malformed, or has too many fields.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"body: content type {content_type or 'none'!r}; expected multipart/form-data, with the files x and y.",
        )
    parser = _InMemoryParser(request.headers, _chunks(body), max_files=2, max_fields=16)
    try:
        return await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        message = getattr(error, "message", None) or str(error)
        raise InputError(
            f"not a form: {message.rstrip('.')}; expected multipart/form-data with the files x and y",
            subject="body",
        ) from error


class _InMemoryParser(MultiPartParser):
    """A parser that writes no file to the disk; the size of the body is limited before."""

    spool_max_size = 1 << 62


async def _chunks(body: memoryview) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _CHUNK):
        yield bytes(body[start : start + _CHUNK])


async def _read(request: Request, length: int | None, max_bytes: int) -> memoryview:
    if length is None:
        return memoryview(await _read_chunked(request, max_bytes))
    body = memoryview(bytearray(length))
    position = 0
    async with contextlib.aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            end = position + len(chunk)
            if end > length:
                raise _too_large("longer than its Content-Length", length)
            body[position:end] = chunk
            position = end
    return body[:position].toreadonly()


async def _read_chunked(request: Request, max_bytes: int) -> bytearray:
    body = bytearray()
    async with contextlib.aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            if len(body) + len(chunk) > max_bytes:
                raise _too_large("longer than that", max_bytes)
            body += chunk
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
