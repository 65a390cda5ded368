"""`tcmoa serve`: bundles as an HTTP service."""

from __future__ import annotations

from typing import Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.fuse_prompt import SHIFT_FORM
from tcmoa_runtime.cli.options import takes_options
from tcmoa_runtime.cli.printing import print_message
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.serve import ServeOptions
from tcmoa_runtime.serving.bundles import name_bundles
from tcmoa_runtime.web.address import DEFAULT_HOST, Address

_ADDRESS_GROUP = "Address"
DEFAULT_PORT = 8000


@takes_options(FuserOptions, name="fuser_options", forms={"prompt_shift": SHIFT_FORM})
@takes_options(ServeOptions)
def serve(
    options: ServeOptions,
    fuser_options: FuserOptions,
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]BUNDLE...",
            help="Folders of bundles, or names of ready ones, see `tcmoa models`. A bundle's name in URLs is that of "
            "its folder, or NAME.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            help="Host to listen on. On other hosts than loopback a token is required.",
            rich_help_panel=_ADDRESS_GROUP,
        ),
    ] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes any free one.", rich_help_panel=_ADDRESS_GROUP)
    ] = DEFAULT_PORT,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TCMOA_TOKEN",
            help="Token that clients need; generated if the host is not loopback.",
            rich_help_panel=_ADDRESS_GROUP,
        ),
    ] = None,
) -> int:
    """Serve bundles over HTTP: the KServe v2 protocol for clients, and image files for curl and browsers.

    Requests that do not fit into the queue are answered with 503 and Retry-After. SIGTERM and Ctrl-C stop the service:
    it takes no more requests, and ends when those in flight have ended. TCMOA_LOG=info shows a line for each request.

    Examples:

        tcmoa serve nano-vif
        tcmoa serve night=bundles/vif-640x480 nano-mef --host 0.0.0.0 --port 8000
    """
    require("tcmoa_runtime.serving.server", "serve", "serve")
    from tcmoa_runtime.serving.local import serve_here

    named = name_bundles(bundles)
    address = Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", subject="host")

    def show(url: str) -> None:
        print_message(f"service: {url} serves {', '.join(named)}")

    serve_here(named, options, fuser_options, address=address, token=token, on_started=show)
    return 0
