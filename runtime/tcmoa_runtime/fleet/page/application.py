"""The page of a fleet as an ASGI application."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fleet.page import routes
from tcmoa_runtime.fleet.page.metrics import fleet_metrics
from tcmoa_runtime.fleet.status import describe_details, describe_fleet
from tcmoa_runtime.fleet.supervisor import FleetStatus, PairStatus
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.metrics_text import CONTENT_TYPE
from tcmoa_runtime.web.access import Access
from tcmoa_runtime.web.asgi import Gate, Handler, page_response, router_errors
from tcmoa_runtime.web.document import content_policy
from tcmoa_runtime.web.refusal import RefusedError
from tcmoa_runtime.web.routes import Route

PICTURE_S: Final = 2.0
"""Time in which the process of a pair must answer with a picture."""

_log = get_logger("fleet")


class FleetSource(Protocol):
    """What the page shows."""

    def status(self) -> FleetStatus:
        """Return the fleet as it is; from any thread."""
        ...

    def picture(self, name: str, width: int, timeout: float) -> bytes | None:
        """Return the newest frame of a pair as a JPEG; None without one. Waits; from any thread."""
        ...


@cache
def fleet_document() -> tuple[str, str]:
    """Return the document and its content security policy."""
    html, style, script = map(_read, ("fleet.html", "fleet.css", "fleet.js"))
    return html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), content_policy(script, style)


def _read(name: str) -> str:
    return files("tcmoa_runtime.fleet.page").joinpath("static", name).read_text(encoding="utf-8")


def make_application(source: FleetSource, access: Access) -> Starlette:
    """Return the application.

    Args:
        source: The fleet.
        access: Who may connect.
    """
    page = _Page(source, access)
    handlers: dict[Route, Handler] = {
        routes.PAGE: page.get_page,
        routes.METRICS: page.get_metrics,
        routes.FLEET: page.get_fleet,
        routes.PAIR: page.get_pair,
        routes.PICTURE: page.get_picture,
        routes.HEALTH: page.get_health,
    }
    gate = Middleware(
        Gate,
        access=access,
        open_paths=frozenset({routes.HEALTH.path}),
        server="page of the fleet",
        owner="supervisor",
        log=_log,
    )
    return Starlette(
        routes=[
            StarletteRoute(route.path, handlers[route], methods=[route.method]) for route in routes.API.routes
        ],
        exception_handlers=router_errors(routes.API),
        middleware=[gate],
    )


class _Page:
    """One handler for each route."""

    def __init__(self, source: FleetSource, access: Access) -> None:
        self._source, self._access = source, access

    async def get_page(self, request: Request) -> Response:
        return page_response(request, self._access, fleet_document())

    async def get_metrics(self, _: Request) -> Response:
        return Response(fleet_metrics(self._source.status()), headers={"Content-Type": CONTENT_TYPE})

    async def get_fleet(self, _: Request) -> Response:
        return JSONResponse(describe_fleet(self._source.status()))

    async def get_pair(self, request: Request) -> Response:
        return JSONResponse(describe_details(self._pair_of(request)))

    async def get_picture(self, request: Request) -> Response:
        pair = self._pair_of(request)
        width = request.query_params.get("width", str(routes.DEFAULT_WIDTH_PX))
        if not (width.isascii() and width.isdigit() and 0 < int(width) <= routes.MAX_WIDTH_PX):
            raise InputError(f"{width!r}; expected 1 to {routes.MAX_WIDTH_PX} pixels", subject="width")
        jpeg = None
        if pair.state in ("running", "stalled"):
            jpeg = await run_in_threadpool(self._source.picture, pair.name, int(width), PICTURE_S)
        if jpeg is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{pair.name}: there is no picture; it is {pair.state}.")
        return Response(jpeg, media_type="image/jpeg")

    async def get_health(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    def _pair_of(self, request: Request) -> PairStatus:
        name = request.path_params["name"]
        for pair in self._source.status().pairs:
            if pair.name == name:
                return pair
        raise RefusedError(HTTPStatus.NOT_FOUND, f"{name}: no such pair. `GET /api/fleet` lists them.")
