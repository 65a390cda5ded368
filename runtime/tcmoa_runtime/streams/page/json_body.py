"""Reading the JSON body of a request."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.page.routes import Route

_NUMBERS = ("scale", "shift", "ramp")


async def read_json_body(request: web.Request, route: Route) -> dict[str, Any]:
    """Read the body as an object; an empty body is an empty object.

    Args:
        request: The request.
        route: Its route, which lists the allowed keys.

    Raises:
        InputError: The body is not a JSON object, or has an unknown key.
    """
    try:
        text = await request.text()
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"cannot be decoded: {error}; expected JSON in UTF-8", subject="body") from error
    if not text.strip():
        return {}
    if request.content_type != "application/json":
        # This also refuses the forms that another site can send without a preflight request.
        raise InputError(f"content type {request.content_type}; expected application/json", subject="body")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", subject="body") from error
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
