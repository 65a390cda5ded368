"""HTTP: the page itself, live control as JSON, figures, Prometheus, the newest picture."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any, Final, Protocol

from aiohttp import web

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.control import PromptControl
from tcmoa_runtime.streams.page.access import Access
from tcmoa_runtime.streams.page.live import LARGEST_WIDTH, Hub, serve_browser
from tcmoa_runtime.streams.stats import prometheus_text

LARGEST_BODY: Final = 4 << 20
"""Bytes of a request: a mask of one number per pixel of 640x480 fits."""
COOKIE_SECONDS: Final = 7 * 24 * 3600


class Shown(Protocol):
    """What the page needs of a stream."""

    @property
    def control(self) -> PromptControl:
        """What steers it."""
        ...

    def figures(self) -> dict[str, Any]:
        """Snapshot of the figures, for JSON."""
        ...

    def about(self) -> dict[str, Any]:
        """What does not change while it runs, for JSON."""
        ...


class Api:
    """Handlers of all routes but the WebSocket's work."""

    def __init__(self, stream: Shown, hub: Hub, access: Access) -> None:
        self._stream, self._hub, self._access = stream, hub, access

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/", self._page)
        app.router.add_get("/live", self._live)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/state", self._state)
        app.router.add_get("/api/figures", self._figures)
        app.router.add_get("/api/frame.jpg", self._frame)
        app.router.add_post("/api/control", self._control)
        app.router.add_put("/api/region", self._region)
        app.router.add_delete("/api/region", self._clear)
        app.router.add_post("/api/reset", self._reset)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if self._access.has_token_in_url(request):
            # Out of the address bar and the history, into a cookie that no script reads.
            answer = web.Response(status=303, headers={"Location": "/"})
            token = self._access.token or ""
            answer.set_cookie(
                self._access.cookie, token, max_age=COOKIE_SECONDS, httponly=True, samesite="Strict"
            )
            return answer
        text, policy = page()
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        return await serve_browser(request, self._hub)

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        text = prometheus_text(self._stream.figures())
        return web.Response(
            body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _state(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({**self._stream.control.state(), "stream": self._stream.about()})

    async def _figures(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self._stream.figures())

    async def _frame(self, request: web.Request) -> web.StreamResponse:
        view, width = request.query.get("view", "fused"), request.query.get("width", str(LARGEST_WIDTH))
        if view not in ("fused", "x", "y"):
            raise InputError(f"view is {view!r}: expected fused, x or y")
        if not (width.isascii() and width.isdigit() and 0 < int(width) <= LARGEST_WIDTH):
            raise InputError(f"width is {width!r}: expected pixels, 1 to {LARGEST_WIDTH}")
        frame = self._hub.frame
        coded = None
        if frame is not None:
            coded = await self._hub.picture(frame, view, int(width))
        if coded is None:
            raise web.HTTPNotFound(text=f"there is no frame of {view} yet")
        return web.Response(body=coded, content_type="image/jpeg")

    async def _control(self, request: web.Request) -> web.StreamResponse:
        given = await _object(request, ("scale", "shift", "ramp"))
        if given.get("scale") is None and given.get("shift") is None:
            raise InputError('nothing to change: expected scale, shift or both, as {"shift": 0.2}')
        self._stream.control.set(**given)
        return web.json_response(self._stream.control.state())

    async def _region(self, request: web.Request) -> web.StreamResponse:
        given = await _object(request, ("rectangle", "mask", "scale", "shift", "ramp"))
        rectangle = given.get("rectangle")
        if rectangle is not None and not isinstance(rectangle, list):
            raise InputError(
                f"region: rectangle is {rectangle!r}: expected [left, top, width, height] in pixels"
            )
        self._stream.control.set_region(**given)
        return web.json_response(self._stream.control.state())

    async def _clear(self, request: web.Request) -> web.StreamResponse:
        given = await _object(request, ("ramp",))
        self._stream.control.clear_region(**given)
        return web.json_response(self._stream.control.state())

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        given = await _object(request, ("ramp",))
        self._stream.control.reset(**given)
        return web.json_response(self._stream.control.state())


async def _object(request: web.Request, known: tuple[str, ...]) -> dict[str, Any]:
    """The request's body as a JSON object with no other keys than `known`; empty is {}. Raises InputError."""
    try:
        text = await request.text()
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"the body is no text: {error}") from error
    if not text.strip():
        return {}
    if request.content_type != "application/json":
        # Also keeps out what forms of other sites can send without asking.
        raise InputError(f"content type is {request.content_type}: expected application/json")
    try:
        given = json.loads(text)
    except ValueError as error:
        raise InputError(f"the body is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise InputError('the body is no JSON object: expected one, as {"shift": 0.2}')
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"{unknown[0]!r} is not known here: expected {', '.join(known)}")
    for name in ("scale", "shift", "ramp"):
        if isinstance(given.get(name), bool):
            raise InputError(f"{name} is {given[name]}: expected a number")
    return given


@cache
def page() -> tuple[str, str]:
    """The page in one piece, and the content security policy that lets it run nothing but its own script."""
    folder = files("tcmoa_runtime.streams.page")
    text, style, script = (
        folder.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )

    def digest(inline: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() + "'"

    policy = (
        f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), policy
