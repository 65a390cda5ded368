"""The HTTP API of the live page as one table."""

from __future__ import annotations

from typing import Final

from tcmoa_runtime.web.address import DEFAULT_HOST, DEFAULT_PORT
from tcmoa_runtime.web.routes import HttpApi, Parameter, Route, page_route

MAX_WIDTH_PX: Final = 8192
"""Largest width of an image that can be requested."""
MAX_BODY_MIB: Final = 4
"""Largest body of a request: a mask with one number for each pixel of 640x480 fits."""
BODY_SECONDS: Final = 20.0
"""Time for the body of a request, from the end of its headers."""


_RAMP: Final = Parameter(
    "ramp", "number, 0 or more", "Duration of the change in seconds; by default as the stream was started."
)
_STATE: Final = "The control state, as `GET /api/state` without `stream`."

PAGE: Final = page_route("The page for a browser.", server="page", file="page.html")
LIVE: Final = Route(
    "GET",
    "/live",
    "Frames and statistics for a browser, over a WebSocket.",
    "Binary messages: a little-endian uint32 with the length of the header, the header in JSON, and the parts that "
    'its key `parts` lists as `[name, bytes]`. Each message is to be answered by `{"ack": SEQUENCE}` with its '
    '`sequence`; the next one holds the newest frame. `{"show": {"views": ["fused", "x", "y", "prompt"], '
    '"width": 640, "tc_moa": null}}` selects the parts, the width of the images in pixels, and the TC-MoA of the '
    "prompt map (null: the mean of all).",
    has_example=False,
)
METRICS: Final = Route(
    "GET",
    "/metrics",
    "Statistics for Prometheus.",
    "Text format 0.0.4; durations in seconds.",
)
STATE: Final = Route(
    "GET",
    "/api/state",
    "The prompt that is set, and what does not change while the stream runs.",
    "`scale` and `shift` (alpha and beta of Eq. 8; means if they are maps), `region` (null, or `scale`, `shift` and "
    "`rectangle` or `token_count`), `grid` (rows and columns of tokens), `size` (height and width), `ramp` (seconds), "
    "`ramping`, `change_count`, and `stream` (names, sizes, task, backend, and "
    "`has_prompt`: whether the network has a prompt that can be changed).",
)
STATS: Final = Route(
    "GET",
    "/api/stats",
    "Statistics of the stream.",
    "The keys of `tcmoa stream`'s JSON: frames, rates, dropped frames by cause, and percentiles of latency, age and "
    "duration in milliseconds.",
)
FRAME: Final = Route(
    "GET",
    "/api/frame.jpg",
    "The newest fused frame or source frame.",
    "A JPEG image; 404 before the first frame.",
    query=(
        Parameter("view", "`fused`, `x` or `y`", "Which image; `fused` by default."),
        Parameter(
            "width", f"1 to {MAX_WIDTH_PX}", "Largest width in pixels, rounded up to a multiple of 64."
        ),
    ),
    example_query="view=fused&width=640",
    example_file="frame.jpg",
)
SNAPSHOT: Final = Route(
    "GET",
    "/api/snapshot.png",
    "The newest fused frame or source frame at its own size, without loss.",
    "A PNG image whose file name holds the local date and time, e.g. `fused-20260131-142501-250.png`; 404 before the "
    "first frame.",
    query=(Parameter("view", "`fused`, `x` or `y`", "Which image; `fused` by default."),),
    example_query="view=fused",
    example_file="snapshot.png",
)
SET_PROMPT: Final = Route(
    "POST",
    "/api/control",
    "Change alpha, beta or both for the whole frame.",
    _STATE,
    body=(
        Parameter("scale", "number or map `[rows][columns]`", "Alpha of Eq. 8: 0 weighs both sources equally, above 1 "
                  "selects more sharply."),
        Parameter("shift", "number or map `[rows][columns]`", "Beta of Eq. 8: above 0 favors x, below 0 favors y."),
        _RAMP,
    ),
    example_body='{"scale": 1.2, "shift": 0.2, "ramp": 0.5}',
)  # fmt: skip
SET_REGION: Final = Route(
    "PUT",
    "/api/region",
    "Set a region with its own alpha and beta, in place of the previous region.",
    _STATE,
    body=(
        Parameter(
            "rectangle", "`[left, top, width, height]`", "In pixels of the frame. Either this or `mask`."
        ),
        Parameter(
            "mask", "`[rows][columns]`, 0 to 1", "One number for each token or for each pixel of the frame."
        ),
        Parameter("scale", "number", "Alpha inside the region; by default the bundle's."),
        Parameter("shift", "number", "Beta inside the region; by default the bundle's."),
        _RAMP,
    ),
    example_body='{"rectangle": [16, 16, 48, 32], "shift": 0.5}',
)
CLEAR_REGION: Final = Route("DELETE", "/api/region", "Remove the region.", _STATE, body=(_RAMP,))
RESET: Final = Route(
    "POST",
    "/api/reset",
    "Return to the bundle's alpha and beta and remove the region.",
    _STATE,
    body=(_RAMP,),
    example_body='{"ramp": 0}',
)

API: Final = HttpApi(
    routes=(
        PAGE,
        LIVE,
        METRICS,
        STATE,
        STATS,
        FRAME,
        SNAPSHOT,
        SET_PROMPT,
        SET_REGION,
        CLEAR_REGION,
        RESET,
    ),
    url=f"http://{DEFAULT_HOST}:{DEFAULT_PORT}",
    notes="Bodies are JSON objects (`Content-Type: application/json`). If the page requires a token, add "
    "`-H 'Authorization: Bearer TOKEN'`. An error under `/api/` is a JSON object with one line in `error`:",
    errors={
        400: "A value is wrong, or the network has no prompt; nothing was changed.",
        404: "There is no such route, or no frame yet.",
        413: f"The body is larger than {MAX_BODY_MIB} MiB.",
        503: "Too many browsers or connections are open.",
    },
)
