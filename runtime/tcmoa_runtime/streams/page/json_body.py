"""Reading the JSON of a request or of a message."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from tcmoa_runtime.errors import InputError, first_line
from tcmoa_runtime.streams.page.routes import BODY_SECONDS
from tcmoa_runtime.web.json_text import parse_json
from tcmoa_runtime.web.routes import Route

MAX_DEPTH: Final = 4
"""Lists and objects in each other; a mask is a list of rows in the body."""
_NUMBERS: Final = ("scale", "shift", "ramp")


async def read_json_body(request: web.Request, route: Route) -> dict[str, Any]:
    """Read the body as an object; an empty body is an empty object.

    Args:
        request: The request.
        route: Its route, which lists the allowed keys.

    Raises:
        InputError: The body is not a JSON object, or has an unknown key.
        web.HTTPRequestTimeout: The body is not complete in time.
    """
    text = await _read_text(request)
    if not text.strip():
        return {}
    if request.content_type != "application/json":
        # This also refuses the forms that another site can send without a preflight request.
        raise InputError(f"content type {request.content_type}; expected application/json", subject="body")
    value = parse_json(text, "body", max_depth=MAX_DEPTH)
    if not isinstance(value, dict):
        raise InputError('not a JSON object; expected e.g. {"shift": 0.2}', subject="body")
    allowed = [parameter.name for parameter in route.body]
    for name in value:
        if name not in allowed:
            raise InputError(f"unknown key {name!r}; expected {', '.join(allowed)}", subject="body")
    for name in _NUMBERS:
        if isinstance(value.get(name), bool):
            raise InputError(f"{value[name]}; expected a number", subject=name)
    return value


async def _read_text(request: web.Request) -> str:
    """Return the body as text. It is UTF-8 whatever the header names, so that no client chooses a codec."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise InputError(f"content encoding {encoding!r}; expected none", subject="body")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"body: not complete within {BODY_SECONDS:g} seconds.") from None
    except web.RequestPayloadError as error:
        raise InputError(f"cannot be read: {first_line(error)}", subject="body") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"cannot be decoded: {error.reason}; expected JSON in UTF-8", subject="body"
        ) from error
