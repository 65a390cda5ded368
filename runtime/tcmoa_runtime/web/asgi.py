"""What the servers share that are ASGI applications of Starlette: access, one line for each error, and headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from logging import Logger
from typing import Final, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tcmoa_runtime.web.access import COOKIE_SECONDS, Access, RequestHead
from tcmoa_runtime.web.refusal import HEADERS, answer_to_error, shorten_line
from tcmoa_runtime.web.routes import HttpApi

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
ErrorHandler: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]

_HEADERS: Final = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Gate:
    """ASGI middleware around the routes of a server."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access | None,
        open_paths: frozenset[str],
        server: str,
        owner: str,
        log: Logger,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            access: Who may connect; None leaves that to whoever mounts the application.
            open_paths: Paths that need no token.
            server: What serves, for the log, e.g. `service`.
            owner: Whose log it is, for clients.
            log: Where failures are logged.
        """
        self._app, self._access, self._open = app, access, open_paths
        self._server, self._owner, self._log = server, owner, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                given = {name.lower() for name, _ in message["headers"]}
                added = ((name, value) for name, value in _HEADERS if name not in given)
                message["headers"] = [*message["headers"], *added]
            await send(message)

        response = await self.respond(scope, receive, send_with_headers)
        if response is not None and not has_begun:
            await self.send_error(response, scope, receive, send_with_headers)

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Run the application; return the response to an error, None if there is none, or no client to read it."""
        try:
            if self._access is not None and scope["path"] not in self._open:
                self._access.check(request_head(scope, self._access))
            await self._app(scope, receive, send)
        except Exception as error:
            return self.answer(scope, error)
        return None

    def answer(self, scope: Scope, error: Exception) -> Response | None:
        """Return the response to an error of the application; None if there is no client to read it."""
        refused = answer_to_error(
            error,
            server=self._server,
            owner=self._owner,
            method=scope["method"],
            path=shown_path(scope),
            log=self._log,
        )
        return error_response(refused.status, refused.line, refused.headers)

    async def send_error(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to an error."""
        await response(scope, receive, send)


def shown_path(scope: Scope) -> str:
    """Return the path of a request for the log: without control characters, and without its query."""
    path: str = scope["path"]
    return path.encode("unicode_escape").decode()


def request_head(scope: Scope, access: Access) -> RequestHead:
    """Return what access depends on of a request."""
    request = Request(scope)
    return access.head_of(
        method=scope["method"],
        headers=request.headers,
        cookies=request.cookies,
        query=request.query_params,
        peer=tuple(scope["client"]) if scope.get("client") else None,
    )


def page_response(request: Request, access: Access | None, document: tuple[str, str]) -> Response:
    """Return a page, or to a request with the right token in its URL a redirection without it.

    That moves the token from the address bar and the history into a cookie that scripts cannot read.

    Args:
        request: The request.
        access: Who may connect.
        document: The HTML and its content security policy.
    """
    if access is not None and access.is_token(request.query_params.get("token", "")):
        response: Response = RedirectResponse(request.url.path, HTTPStatus.SEE_OTHER)
        response.set_cookie(
            access.cookie, access.token or "", max_age=COOKIE_SECONDS, httponly=True, samesite="strict"
        )
        return response
    html, policy = document
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})


def error_response(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return one line as JSON."""
    text = shorten_line(line).encode(errors="replace").decode()
    return JSONResponse({"error": text}, status, headers)


def router_errors(api: HttpApi) -> dict[type[Exception], ErrorHandler]:
    """Return what answers the errors of the router: no such path, or another method."""

    async def answer(_: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            line = f"method: not one of this route; expected {headers.get('Allow', '')}."
        else:
            line = api.unknown_path
        return error_response(error.status_code, line, headers)

    return {HTTPException: answer}
