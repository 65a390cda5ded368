"""Access to the page, see `tcmoa_runtime.web.access`, for requests of aiohttp."""

from __future__ import annotations

from aiohttp import web

from tcmoa_runtime.web.access import Access, RequestHead


def page_access(*, is_loopback: bool, token: str | None, port: int) -> Access:
    """Return who may connect to a page.

    Args:
        is_loopback: Whether it listens on a loopback address.
        token: The required token; None admits everyone who can connect.
        port: Its port.
    """
    return Access(
        is_loopback,
        token,
        port,
        subject="page",
        use="control this stream",
        token_hint="Open the URL that `tcmoa stream` printed",
    )


def request_head(request: web.Request, access: Access) -> RequestHead:
    """Return what access depends on of a request."""
    transport = request.transport
    return access.head_of(
        method=request.method,
        headers=request.headers,
        cookies=request.cookies,
        query=request.query,
        peer=None if transport is None else transport.get_extra_info("peername"),
    )
