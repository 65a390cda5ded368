"""The service as one ASGI application, for uvicorn, Ray Serve, or to be mounted in another application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Message, Receive, Scope, Send

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.machine import package_version
from tcmoa_runtime.metrics_text import CONTENT_TYPE
from tcmoa_runtime.options.serve import ServeOptions
from tcmoa_runtime.serving import routes
from tcmoa_runtime.serving.body import read_body
from tcmoa_runtime.serving.form import form_page
from tcmoa_runtime.serving.fuse_form import read_form
from tcmoa_runtime.serving.gate import ServiceGate
from tcmoa_runtime.serving.image_formats import MEDIA_TYPES
from tcmoa_runtime.serving.metrics import ServiceMetrics
from tcmoa_runtime.serving.model import ImageLimits, Model
from tcmoa_runtime.serving.protocol import HEADER_LENGTH, MODEL_VERSION, encode_response, parse_request
from tcmoa_runtime.serving.work_queue import WorkQueue
from tcmoa_runtime.web.access import Access
from tcmoa_runtime.web.asgi import Handler, page_response, router_errors
from tcmoa_runtime.web.refusal import RefusedError
from tcmoa_runtime.web.routes import Route

_MIB: Final = 1 << 20


def make_application(
    fusers: Mapping[str, Fuser],
    options: ServeOptions | None = None,
    *,
    access: Access | None = None,
    prompt: Prompt | None = None,
) -> Starlette:
    """Return the service as an ASGI application.

        with Fuser.load("nano-vif") as fuser:
            app = Starlette(routes=[Mount("/fusion", app=make_application({"nano-vif": fuser}))])

    Args:
        fusers: Fusers by the name of their model in URLs; the caller closes them after the application has ended.
        options: Limits.
        access: Who may connect; None leaves that to whoever runs or mounts the application.
        prompt: Prompt of requests that give none; the bundles' defaults if None.

    Returns:
        The application; its `state.service` is the `Service`, with which it is stopped.

    Raises:
        NoPromptError: There is a prompt for a network that has none.
    """
    service = Service(fusers, options or ServeOptions(), access, prompt)
    open_paths = frozenset(route.path for route in routes.OPEN_ROUTES)
    app = Starlette(
        routes=service.routes(),
        middleware=[
            Middleware(
                ServiceGate,
                access=access,
                metrics=service.metrics,
                queue=service.queue,
                open_paths=open_paths,
            ),
        ],
        exception_handlers=router_errors(routes.API),
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


class Service:
    """The models, the queue and the counts of an application.

    Attributes:
        models: The models by name.
        metrics: Counts of requests.
        queue: Waiting requests.
    """

    def __init__(
        self,
        fusers: Mapping[str, Fuser],
        options: ServeOptions,
        access: Access | None,
        prompt: Prompt | None,
    ) -> None:
        """Serve fusers by name."""
        if not fusers:
            raise InputError("no bundle; expected one or more", subject="service")
        limits = ImageLimits(max_pixels=options.max_pixels)
        self.metrics = ServiceMetrics()
        self.queue = WorkQueue(options.concurrency, options.max_queue)
        self.models = {
            name: Model(name, fuser, limits, prompt=prompt, on_fused=self.metrics.add_fused)
            for name, fuser in fusers.items()
        }
        self._options, self._access = options, access
        self._is_ready = True
        self._handlers: dict[Route, Handler] = {
            routes.FORM: self._get_form,
            routes.FUSE: self._fuse,
            routes.LIVE: self._get_live,
            routes.READY: self._get_ready,
            routes.SERVER: self._get_server,
            routes.MODELS: self._list_models,
            routes.MODEL: self._get_model,
            routes.MODEL_READY: self._get_model_ready,
            routes.INFER: self._infer,
            routes.METRICS: self._get_metrics,
        }

    async def stop(self, grace: float) -> bool:
        """Take no more requests, and wait for those that were taken.

        Args:
            grace: Seconds to wait.

        Returns:
            Whether all of them have ended.
        """
        self._is_ready = False
        self.queue.close()
        try:
            async with asyncio.timeout(grace):
                await self.queue.wait_idle()
        except TimeoutError:
            return False
        finally:
            self.queue.shutdown()
        return True

    def routes(self) -> list[StarletteRoute]:
        """Return the routes of `routes.API` with their handlers."""
        made = []
        for route in routes.API.routes:
            handler = _named(route, self._handlers[route])
            made.append(StarletteRoute(route.path, handler, methods=[route.method]))
            if "{name}" in route.path:
                path = route.path.replace("{name}", "{name}/versions/{version}")
                made.append(StarletteRoute(path, handler, methods=[route.method]))
        return made

    async def _get_form(self, request: Request) -> Response:
        tasks = {name: model.fuser.bundle.task for name, model in self.models.items()}
        return page_response(request, self._access, form_page(tasks))

    async def _get_live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _get_ready(self, _: Request) -> Response:
        return JSONResponse({"ready": self._is_ready}, self._ready_status)

    async def _get_server(self, _: Request) -> Response:
        return JSONResponse(
            {
                "name": "tcmoa",
                "version": package_version("tcmoa") or "unknown",
                "extensions": ["binary_tensor_data"],
            }
        )

    async def _list_models(self, _: Request) -> Response:
        state = "READY" if self._is_ready else "UNAVAILABLE"
        return JSONResponse(
            [{"name": name, "version": MODEL_VERSION, "state": state} for name in self.models]
        )

    async def _get_model(self, request: Request) -> Response:
        return JSONResponse(self._model_of(request).describe())

    async def _get_model_ready(self, request: Request) -> Response:
        name = self._model_of(request).name
        return JSONResponse({"name": name, "ready": self._is_ready}, self._ready_status)

    async def _get_metrics(self, _: Request) -> Response:
        text = self.metrics.text(self.queue, is_ready=self._is_ready)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def _infer(self, request: Request) -> Response:
        model = self._model_of(request)
        async with self.queue.place():
            body = await read_body(request, self._options.max_body_mib * _MIB)
            json_length = request.headers.get(HEADER_LENGTH)
            # Large JSON takes a while to parse, which must not hold up the event loop.
            is_small = json_length is not None and len(json_length) <= _SMALL_DIGITS
            parse = partial(parse_request, body, json_length)
            parsed = parse() if is_small else await asyncio.to_thread(parse)
            max_wait = min(self._options.max_wait, _timeout_of(parsed.parameters))

            def answer() -> tuple[bytes, bytes | None]:
                return encode_response(model.name, parsed, model.infer(parsed))

            text, data = await self.queue.run(answer, max_wait, partial(_wait_until_gone, request))
        return _InferResponse(text, data)

    async def _fuse(self, request: Request) -> Response:
        async with self.queue.place():
            body = await read_body(request, self._options.max_body_mib * _MIB)
            # In a thread, with an event loop of its own: parsing waits for nothing, but may take a while.
            form = await asyncio.to_thread(asyncio.run, read_form(request, body))
            model = self._model_named(form.bundle or next(iter(self.models)))
            answer = partial(
                model.fuse_files, form.x, form.y, form.image_format, scale=form.scale, shift=form.shift
            )
            data = await self.queue.run(answer, self._options.max_wait, partial(_wait_until_gone, request))
        return Response(data, media_type=MEDIA_TYPES[form.image_format])

    @property
    def _ready_status(self) -> int:
        return HTTPStatus.OK if self._is_ready else HTTPStatus.SERVICE_UNAVAILABLE

    def _model_of(self, request: Request) -> Model:
        version = request.path_params.get("version", MODEL_VERSION)
        model = self._model_named(request.path_params["name"])
        if version != MODEL_VERSION:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, f"{model.name}: no version {version!r}; expected {MODEL_VERSION}."
            )
        return model

    def _model_named(self, name: str) -> Model:
        model = self.models.get(name)
        if model is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND, f"{name}: no such bundle; expected {', '.join(self.models)}."
            )
        return model


_SMALL_DIGITS: Final = 5
"""JSON of up to this many digits of bytes is parsed in the event loop's thread: less than 100 kB."""


class _InferResponse(Response):
    """A response whose JSON and binary data are sent one after the other, without joining them."""

    def __init__(self, text: bytes, data: bytes | None) -> None:
        if data is None:
            super().__init__(text, media_type="application/json")
            self._data = None
            return
        headers = {HEADER_LENGTH: str(len(text)), "Content-Length": str(len(text) + len(data))}
        super().__init__(text, media_type="application/octet-stream", headers=headers)
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        data = self._data
        if data is None:
            await super().__call__(scope, receive, send)
            return

        async def send_both(message: Message) -> None:
            if message["type"] == "http.response.body":
                await send({**message, "more_body": True})
                message = {"type": "http.response.body", "body": data}
            await send(message)

        await super().__call__(scope, receive, send_both)


def _named(route: Route, handler: Handler) -> Handler:
    """Note the route of a request for its count and its line in the log."""

    async def handle(request: Request) -> Response:
        request.scope["tcmoa.route"] = route.path
        return await handler(request)

    return handle


async def _wait_until_gone(request: Request) -> None:
    """Return when the client has closed the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _timeout_of(parameters: Mapping[str, object]) -> float:
    """Return the seconds of the parameter `timeout`, which is in microseconds; infinity without it."""
    value = parameters.get("timeout")
    if value is None:
        return float("inf")
    if type(value) is not int or value < 0:
        raise InputError(f"{value!r}; expected a number of microseconds", subject="timeout")
    return value / 1e6 if value else float("inf")
