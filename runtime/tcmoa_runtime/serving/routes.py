"""The HTTP API of the service as one table."""

from __future__ import annotations

from typing import Final

from tcmoa_runtime.options.serve import DEFAULT_PORT
from tcmoa_runtime.web.address import DEFAULT_HOST
from tcmoa_runtime.web.routes import HttpApi, Parameter, Route, page_route

EXAMPLE_MODEL: Final = "nano-vif"

_FORMATS: Final = "`png`, `jpeg`, `webp`, `tiff` or `bmp`"
_MODEL_PATH: Final = f"/v2/models/{EXAMPLE_MODEL}"

FORM: Final = page_route("A page for a browser that fuses two images.", server="service", file="service.html")
LIVE: Final = Route(
    "GET",
    "/v2/health/live",
    "Whether the process answers. Needs no token.",
    '`{"live": true}`',
)
READY: Final = Route(
    "GET",
    "/v2/health/ready",
    "Whether requests are taken. Needs no token.",
    '`{"ready": true}`; status 503 and `{"ready": false}` while the service stops.',
)
SERVER: Final = Route(
    "GET",
    "/v2",
    "Name and version of the server.",
    "`name` (`tcmoa`), `version`, and `extensions` (`binary_tensor_data`).",
)
MODELS: Final = Route(
    "POST",
    "/v2/repository/index",
    "The bundles that are served, as Triton lists its models.",
    "A list of objects with `name`, `version` (`1`) and `state` (`READY`).",
)
MODEL: Final = Route(
    "GET",
    "/v2/models/{name}",
    "Inputs and outputs of a bundle.",
    "`name`, `versions`, `platform`, and `inputs` and `outputs` with `name`, `datatype` and `shape`; an axis of -1 may "
    "have any length.",
    example_path=_MODEL_PATH,
)
MODEL_READY: Final = Route(
    "GET",
    "/v2/models/{name}/ready",
    "Whether a bundle takes requests.",
    '`{"name": "nano-vif", "ready": true}`; status 503 while the service stops.',
    example_path=f"{_MODEL_PATH}/ready",
)
INFER: Final = Route(
    "POST",
    "/v2/models/{name}/infer",
    "Fuse tensors. JSON, or JSON followed by binary tensor data (header `Inference-Header-Content-Length`).",
    "`model_name`, `model_version`, `id` if given, and `outputs` with `name`, `datatype`, `shape` and `data`, or "
    "`binary_data_size` among their `parameters`. `fused` is UINT8 `[H, W, 3]` in the bundle's channel order. Byte "
    "strings in JSON are in base64.",
    body=(
        Parameter(
            "inputs: x, y",
            "UINT8 or UINT16 `[H, W, C]`, `[H, W]` or `[B, H, W, C]`; BYTES `[1]` or `[B]`",
            "The sources, in the bundle's channel order; BYTES are image files.",
        ),
        Parameter(
            "inputs: prompt_scale, prompt_shift",
            "numbers `[1]`, `[1, 1, 1]`, `[B, 1, 1]`, `[gh, gw]` or `[B, gh, gw]`",
            "Alpha and beta of Eq. 8: a number, one for each frame, or maps. May be left out.",
        ),
        Parameter(
            "outputs",
            "list of `name`",
            "`fused` (the default), `fused_png` and `fused_jpeg` (image files, BYTES), `prompt` (FP32 `[K, 2, gh, "
            "gw]`) if the bundle has that output.",
        ),
        Parameter(
            "parameters: prompt_scale, prompt_shift",
            "number",
            "Alpha and beta, where they are not inputs.",
        ),
        Parameter(
            "parameters: timeout", "microseconds", "Time that the request may wait before it is begun."
        ),
        Parameter("parameters: binary_data_output", "true or false", "Whether all outputs are binary data."),
        Parameter("id", "text", "Repeated in the response."),
    ),
    example_path=f"{_MODEL_PATH}/infer",
    has_example=False,
)
FUSE: Final = Route(
    "POST",
    "/v1/fuse",
    "Fuse two image files (`multipart/form-data`).",
    "The fused image as a file, in the format that `format` or the header `Accept` asks for.",
    body=(
        Parameter("x", "image file", "The first source: PNG, JPEG, TIFF, BMP or WebP with 8 or 16 bits."),
        Parameter("y", "image file", "The second source."),
        Parameter("bundle", "text", "Name of the bundle; the first one by default."),
        Parameter("scale", "number", "Alpha of Eq. 8: 0 weighs both sources equally, above 1 selects more sharply."),
        Parameter("shift", "number", "Beta of Eq. 8: above 0 favors x, below 0 favors y."),
        Parameter("format", _FORMATS, "Format of the result; as `Accept` by default, else PNG."),
    ),
    body_title="Field",
    example_options=("-F", "x=@visible.png", "-F", "y=@infrared.png"),
    example_file="fused.png",
)  # fmt: skip
METRICS: Final = Route(
    "GET",
    "/metrics",
    "Statistics for Prometheus.",
    "Text format 0.0.4: `tcmoa_serve_requests_total` by method, route and status, `tcmoa_serve_request_seconds` by "
    "route and `tcmoa_serve_fuse_seconds` by bundle (histograms), `tcmoa_serve_pairs_total`, "
    "`tcmoa_serve_queue_length`, `tcmoa_serve_running`, `tcmoa_serve_requests_in_flight`, `tcmoa_serve_ready`.",
)

API: Final = HttpApi(
    routes=(FORM, FUSE, LIVE, READY, SERVER, MODELS, MODEL, MODEL_READY, INFER, METRICS),
    url=f"http://{DEFAULT_HOST}:{DEFAULT_PORT}",
    notes="If the service requires a token, add `-H 'Authorization: Bearer TOKEN'`. A path with `/versions/1` after "
    "the name of a bundle means the same. An error is a JSON object with one line in `error`:",
    errors={
        400: "The request is wrong: a tensor, an image, a prompt, a field or a parameter.",
        404: "There is no such route, bundle or version.",
        406: "`Accept` names no format that the service writes.",
        413: "The body is larger than the limit of the service (64 MiB by default).",
        415: "The body is compressed, or no form.",
        503: "The queue is full, too many connections are open, or the service stops; try again after `Retry-After`.",
        504: "The request has waited for its turn for too long; it was not begun.",
    },
)

OPEN_ROUTES: Final = (LIVE, READY)
"""Routes that need no token, for the probes of an orchestrator; they say nothing but true or false."""
