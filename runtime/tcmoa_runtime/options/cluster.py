"""Options of all commands that run on Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from tcmoa_runtime.options.option import Option

CLUSTER_GROUP: Final = "Cluster"


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where the work runs: on this machine, or on the nodes of a Ray cluster."""

    address: Annotated[
        str | None,
        Option(
            "Address of a Ray cluster, e.g. auto or ray://head:10001; a private one on this machine if not given.",
            group=CLUSTER_GROUP,
            metavar="auto|HOST:PORT|ray://HOST:PORT",
        ),
    ] = None
