"""The HTTP API of a fleet as one table."""

from __future__ import annotations

from typing import Final

from tcmoa_runtime.fleet.report import STATES
from tcmoa_runtime.options.fleet import DEFAULT_FLEET_PORT
from tcmoa_runtime.web.address import DEFAULT_HOST
from tcmoa_runtime.web.routes import HttpApi, Parameter, Route, page_route

MAX_WIDTH_PX: Final = 1920
"""Largest width of a picture that can be requested."""
DEFAULT_WIDTH_PX: Final = 320

_STATES: Final = ", ".join(f"`{state}`" for state in STATES)

PAGE: Final = page_route("The page for a browser.", server="page", file="fleet.html")
METRICS: Final = Route(
    "GET",
    "/metrics",
    "Statistics of all pairs for Prometheus.",
    "Text format 0.0.4. The metrics of a stream's own page with the labels `stream` (name of the pair) and `node` (its "
    "host), and `tcmoa_fleet_pairs` (number of pairs by `state`), `tcmoa_fleet_up` (1 while a pair is running), "
    "`tcmoa_fleet_starts_total` and `tcmoa_fleet_frame_age_seconds`.",
)
FLEET: Final = Route(
    "GET",
    "/api/fleet",
    "The state of the fleet.",
    "`fleet` (its name), `supervisor`, `file_error` (why the file that is there now was refused, or null), "
    "`age_s` (seconds since this was so: more than a few while Ray does not answer), `counts` "
    f"(number of pairs by state: {_STATES}) and `pairs`, a list of objects with `name`, `state`, `state_s`, `message`, "
    "`error`, `retry_s`, `node` (`id`, `ip`, `host`), `pid`, `page`, `x`, `y`, `outs`, `live`, `size`, `rate`, "
    "`age_ms`, `frame_s`, `frames`, `dropped`, `start_count` and `process_s`.",
)
PAIR: Final = Route(
    "GET",
    "/api/pairs/{name}",
    "One pair, with all statistics of its stream.",
    "An object as in `pairs` of `GET /api/fleet`, and `stats` (the keys of `tcmoa stream`'s JSON).",
    example_path="/api/pairs/gate",
)
PICTURE: Final = Route(
    "GET",
    "/api/pairs/{name}/picture.jpg",
    "The newest fused frame of a pair.",
    "A JPEG image; 404 before the first frame, and while the process of the pair does not answer.",
    query=(
        Parameter(
            "width",
            f"1 to {MAX_WIDTH_PX}",
            f"Largest width in pixels, rounded up to a multiple of 64; {DEFAULT_WIDTH_PX} by default.",
        ),
    ),
    example_path="/api/pairs/gate/picture.jpg",
    example_query="width=640",
    example_file="gate.jpg",
)
HEALTH: Final = Route("GET", "/health", "Whether the supervisor answers. Needs no token.", '`{"live": true}`')

API: Final = HttpApi(
    routes=(PAGE, METRICS, FLEET, PAIR, PICTURE, HEALTH),
    url=f"http://{DEFAULT_HOST}:{DEFAULT_FLEET_PORT}",
    notes="If the page requires a token, add `-H 'Authorization: Bearer TOKEN'`. An error is a JSON object with one "
    "line in `error`:",
    errors={
        400: "A value is wrong.",
        404: "There is no such route or pair, or no picture yet.",
        408: "The headers were not complete in time.",
        503: "Too many connections are open.",
    },
)
