"""`tcmoa serve`: bundles as an HTTP service."""

from __future__ import annotations

from typing import Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.fuse_prompt import SHIFT_FORM
from tcmoa_runtime.cli.options import TextForm, takes_options
from tcmoa_runtime.cli.printing import print_message
from tcmoa_runtime.cli.token import check_token_is_known
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.cluster import ClusterOptions
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.serve import ADDRESS_GROUP, ListenOptions, ReplicaOptions, ServeOptions
from tcmoa_runtime.serving.bundles import name_bundles


def _parse_replicas(text: str) -> tuple[int, int]:
    """Parse MIN,MAX or one number."""
    low, mark, high = text.partition(",")
    if not (low.isascii() and low.isdigit() and (not mark or (high.isascii() and high.isdigit()))):
        raise InputError(f"{text!r}; expected MIN,MAX or a number, e.g. 1,4")
    return int(low), int(high if mark else low)


_REPLICAS_FORM = TextForm(_parse_replicas, lambda value: f"{value[0]},{value[1]}", "MIN,MAX")


@takes_options(FuserOptions, name="fuser_options", forms={"prompt_shift": SHIFT_FORM})
@takes_options(ClusterOptions, name="cluster_options")
@takes_options(ReplicaOptions, name="replica_options", forms={"replicas": _REPLICAS_FORM})
@takes_options(ListenOptions, name="listen_options")
@takes_options(ServeOptions)
def serve(
    options: ServeOptions,
    listen_options: ListenOptions,
    replica_options: ReplicaOptions,
    cluster_options: ClusterOptions,
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
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TCMOA_TOKEN",
            help="Token that clients need; generated if the host is not loopback.",
            rich_help_panel=ADDRESS_GROUP,
        ),
    ] = None,
) -> int:
    """Serve bundles over HTTP: the KServe v2 protocol for clients, and image files for curl and browsers.

    Requests that do not fit into the queue are answered with 503 and Retry-After. SIGTERM and Ctrl-C stop the service:
    it takes no more requests, and ends when those in flight have ended. TCMOA_LOG=info shows a line for each request.
    With an address of a Ray cluster, or a number of replicas, the same service runs on Ray Serve.

    Examples:

        tcmoa serve nano-vif
        tcmoa serve night=bundles/vif-640x480 nano-mef --host 0.0.0.0 --port 8000
        tcmoa serve nano-vif --address ray://head:10001 --replicas 2,8 --host 0.0.0.0
    """
    require("tcmoa_runtime.serving.server", "serve", "serve")
    named = name_bundles(bundles)
    check_token_is_known(token, listen_options.address)

    def show(url: str) -> None:
        print_message(f"service: {url} serves {', '.join(named)}")

    if cluster_options.address is None and replica_options.replicas is None:
        if replica_options.gpus:
            raise InputError(
                f"{replica_options.gpus:g}, but GPUs are given to replicas on Ray; expected them as well",
                subject="gpus",
                remedy="Set {replicas} or {address}, or leave it out: without Ray, the backend takes a GPU",
                settings={"replicas": "1,4", "address": "auto"},
            )
        from tcmoa_runtime.serving.local import serve_here

        serve_here(
            named, options, fuser_options, address=listen_options.address, token=token, on_started=show
        )
        return 0
    require("ray", "serve", "ray")
    from tcmoa_runtime.serving.ray_service import serve_on_ray

    serve_on_ray(
        named,
        options,
        fuser_options,
        replica_options,
        cluster=cluster_options.address,
        address=listen_options.address,
        token=token,
        on_started=show,
        on_message=lambda line: print_message(f"service: {line}"),
    )
    return 0
