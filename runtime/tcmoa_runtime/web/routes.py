"""The HTTP API of a server as a table of routes, from which the server and its documentation are made."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

COMMON_ERRORS: Final[Mapping[int, str]] = {
    401: "A token is required.",
    403: "The request comes from another site, or for another host.",
    405: "The route has other methods.",
    408: "The headers or the body were not complete in time.",
    429: "Your address has sent too many wrong tokens; the header `Retry-After` says how many seconds to wait.",
}
"""Errors that every server answers alike."""

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query, a key of the JSON body, or a field of a form.

    Attributes:
        name: Name in the query or the body.
        value: Type and range, for the documentation.
        meaning: A sentence for the documentation.
    """

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Route:
    """One route of the HTTP API.

    Attributes:
        method: HTTP method.
        path: Path of the URL.
        summary: What the request does.
        response: What the response holds.
        query: Parameters of the query.
        body: Keys of the JSON body, or fields of the form; others are refused.
        body_title: What `body` lists, for the documentation.
        example_query: Query of the example.
        example_body: JSON body of the example.
        example_file: File that the example writes the response to.
        example_path: Path of the example, where `path` has placeholders.
        example_options: Options of `curl` with which the example sends its body.
        has_example: Whether `curl` can send the request.
    """

    method: Method
    path: str
    summary: str
    response: str
    query: tuple[Parameter, ...] = ()
    body: tuple[Parameter, ...] = ()
    body_title: str = "Key of the body"
    example_query: str = ""
    example_body: str = ""
    example_file: str = ""
    example_path: str = ""
    example_options: tuple[str, ...] = ()
    has_example: bool = True

    def curl(self, url: str) -> str:
        """Return the example as a command for the server at `url`."""
        words = ["curl", *self.example_options]
        if self.method != "GET" and not self.example_options:
            words += ["-X", self.method]
        if self.example_body:
            words += ["-H", "Content-Type: application/json", "-d", self.example_body]
        if self.example_file:
            words += ["-o", self.example_file]
        query = f"?{self.example_query}" if self.example_query else ""
        return shlex.join([*words, f"{url}{self.example_path or self.path}{query}"])


@dataclass(frozen=True, kw_only=True)
class HttpApi:
    """The HTTP API of one server, from which its routes and its reference are made.

    Attributes:
        routes: The routes, in the order of the reference.
        url: URL of the server in the examples, without a path.
        notes: What holds for all routes; the table of the errors follows it in the reference.
        errors: Meaning of each status of an error; those of `COMMON_ERRORS` need not be repeated.
    """

    routes: tuple[Route, ...]
    url: str
    notes: str
    errors: Mapping[int, str]

    @property
    def examples(self) -> list[str]:
        """The examples of all routes as commands."""
        return [route.curl(self.url) for route in self.routes if route.has_example]

    @property
    def unknown_path(self) -> str:
        """The line that answers a path of no route."""
        return f"path: no such route; expected one of {', '.join(route.path for route in self.routes)}"

    def describe(self, heading: str = "###") -> str:
        """Return the reference in Markdown: a table of the routes, and each one with an example.

        Args:
            heading: Mark of the headings of the routes.
        """
        errors = {**COMMON_ERRORS, **self.errors}
        blocks = [
            _table(("Method", "Path", "Does"), [(r.method, f"`{r.path}`", r.summary) for r in self.routes]),
            self.notes,
            _table(("Status", "Meaning"), [(str(status), errors[status]) for status in sorted(errors)]),
        ]
        for route in self.routes:
            blocks += [f"{heading} `{route.method} {route.path}`", *_describe_route(route, self.url)]
        return "\n\n".join(blocks) + "\n"


def page_route(summary: str, *, server: str, file: str) -> Route:
    """Return the route of the page for a browser.

    Args:
        summary: What the page is, as a sentence.
        server: What may require a token, e.g. `page`.
        file: File that the example writes.
    """
    return Route(
        "GET",
        "/",
        f"{summary} A token in the query is moved into a cookie.",
        "HTML",
        query=(Parameter("token", "text", f"The token, if the {server} requires one."),),
        example_file=file,
    )


def _describe_route(route: Route, url: str) -> Iterator[str]:
    yield route.summary
    for title, parameters in (("Query", route.query), (route.body_title, route.body)):
        if parameters:
            rows = [(f"`{p.name}`", p.value, p.meaning) for p in parameters]
            yield _table((title, "Value", "Meaning"), rows)
    yield f"Response: {route.response}"
    if route.has_example:
        yield f"```sh\n{route.curl(url)}\n```"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
