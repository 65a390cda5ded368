"""Handlers of the HTTP API: the page, control and statistics as JSON, metrics for Prometheus, the newest image."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, get_args

from aiohttp import web
from aiohttp.typedefs import Handler

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.metrics_text import CONTENT_TYPE, MetricsText
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.streams.metrics import add_stream_metrics
from tcmoa_runtime.streams.page import routes
from tcmoa_runtime.streams.page.browser import serve_browser
from tcmoa_runtime.streams.page.document import page_document
from tcmoa_runtime.streams.page.encoding import ImageName
from tcmoa_runtime.streams.page.hub import Hub
from tcmoa_runtime.streams.page.json_body import read_json_body
from tcmoa_runtime.streams.page.stream_info import StreamInfo
from tcmoa_runtime.web.access import COOKIE_SECONDS, Access
from tcmoa_runtime.web.routes import Route

_WIDTH: Final = re.compile(r"[0-9]{1,9}")


class Api:
    """One handler for each route of `routes.API`."""

    def __init__(self, stream: StreamInfo, hub: Hub, access: Access) -> None:
        """Serve a stream whose newest frame is in `hub`."""
        self._stream, self._hub, self._access = stream, hub, access
        self._handlers: dict[Route, Handler] = {
            routes.PAGE: self._get_page,
            routes.LIVE: self._serve_browser,
            routes.METRICS: self._get_metrics,
            routes.STATE: self._get_state,
            routes.STATS: self._get_stats,
            routes.FRAME: self._get_frame,
            routes.SNAPSHOT: self._get_snapshot,
            routes.SET_PROMPT: self._set_prompt,
            routes.SET_REGION: self._set_region,
            routes.CLEAR_REGION: self._clear_region,
            routes.RESET: self._reset,
        }

    def add_routes(self, app: web.Application) -> None:
        """Register the handlers."""
        for route in routes.API.routes:
            handler = self._handlers[route]
            if route.method == "GET":
                app.router.add_get(route.path, handler)  # also answers HEAD
            else:
                app.router.add_route(route.method, route.path, handler)

    async def _get_page(self, request: web.Request) -> web.StreamResponse:
        if self._access.is_token(request.query.get("token", "")):
            # Move the token from the address bar and the history into a cookie that scripts cannot read.
            response = web.Response(status=303, headers={"Location": "/"})
            response.set_cookie(
                self._access.cookie,
                self._access.token or "",
                max_age=COOKIE_SECONDS,
                httponly=True,
                samesite="Strict",
            )
            return response
        html, policy = page_document()
        return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def _serve_browser(self, request: web.Request) -> web.StreamResponse:
        return await serve_browser(request, self._hub)

    async def _get_metrics(self, _: web.Request) -> web.StreamResponse:
        metrics = MetricsText()
        add_stream_metrics(metrics, self._stream.stats())
        return web.Response(body=metrics.text().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _get_state(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({**self._stream.control.state(), "stream": self._stream.describe()})

    async def _get_stats(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self._stream.stats())

    async def _get_frame(self, request: web.Request) -> web.StreamResponse:
        name, width = _image_name(request.query.get("view", "fused")), request.query.get("width")
        if width is None:
            width = str(routes.MAX_WIDTH_PX)
        if not (_WIDTH.fullmatch(width) and 0 < int(width) <= routes.MAX_WIDTH_PX):
            raise InputError(f"{width!r}; expected 1 to {routes.MAX_WIDTH_PX} pixels", subject="width")
        frame = self._hub.frame
        jpeg = None if frame is None else await self._hub.jpeg(frame, name, int(width))
        if jpeg is None:
            raise web.HTTPNotFound(text=f"there is no {name} frame yet")
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def _get_snapshot(self, request: web.Request) -> web.StreamResponse:
        name, frame = _image_name(request.query.get("view", "fused")), self._hub.frame
        png = None if frame is None else await self._hub.png(frame, name)
        if png is None:
            raise web.HTTPNotFound(text=f"there is no {name} frame yet")
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        disposition = f'attachment; filename="{name}-{stamp}.png"'
        return web.Response(body=png, content_type="image/png", headers={"Content-Disposition": disposition})

    async def _set_prompt(self, request: web.Request) -> web.StreamResponse:
        body = await read_json_body(request, routes.SET_PROMPT)
        if body.get("scale") is None and body.get("shift") is None:
            raise InputError(
                'neither scale nor shift; expected one or both, e.g. {"shift": 0.2}', subject="body"
            )
        self._stream.control.set(**body)
        return self._control_state()

    async def _set_region(self, request: web.Request) -> web.StreamResponse:
        body = await read_json_body(request, routes.SET_REGION)
        self._stream.control.set_region(**body)
        return self._control_state()

    async def _clear_region(self, request: web.Request) -> web.StreamResponse:
        self._stream.control.clear_region(**await read_json_body(request, routes.CLEAR_REGION))
        return self._control_state()

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        self._stream.control.reset(**await read_json_body(request, routes.RESET))
        return self._control_state()

    def _control_state(self) -> web.Response:
        return web.json_response(self._stream.control.state())


def _image_name(text: str) -> ImageName:
    names: tuple[ImageName, ...] = get_args(ImageName)
    check_choice("view", text, names)
    return next(name for name in names if name == text)
