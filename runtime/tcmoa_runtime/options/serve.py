"""Options of `tcmoa serve`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.cluster import CLUSTER_GROUP
from tcmoa_runtime.options.option import Option, check_minimum, check_range, check_seconds
from tcmoa_runtime.web.address import DEFAULT_HOST, MAX_PORT, Address

ADDRESS_GROUP = "Address"
LIMITS_GROUP = "Limits"
DEFAULT_PORT = 8000

MAX_CONCURRENCY = 256
MAX_QUEUE = 10_000
MAX_BODY_MIB = 2048
MAX_MEGAPIXELS = 256.0
MAX_REPLICAS = 10_000
MAX_GPUS = 64
DEFAULT_REPLICAS = (1, 4)


@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """What a service listens on."""

    host: Annotated[
        str,
        Option(
            "Host to listen on. On other hosts than loopback a token is required.",
            group=ADDRESS_GROUP,
            metavar="HOST",
        ),
    ] = DEFAULT_HOST
    port: Annotated[int, Option("Port to listen on; 0 takes any free one.", group=ADDRESS_GROUP)] = (
        DEFAULT_PORT
    )

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        check_range("port", self.port, 0, MAX_PORT)
        try:
            is_ipv6 = ip_address(self.host).version == 6
        except ValueError:
            is_ipv6 = False
        if not self.host or (":" in self.host and not is_ipv6) or re.search(r"[\s/@\[\]]", self.host):
            raise InputError(
                f"{self.host!r}; expected a name or an IP address, e.g. {DEFAULT_HOST}", subject="host"
            )

    @property
    def address(self) -> Address:
        """The address."""
        return Address(self.host, self.port)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Limits of a service."""

    concurrency: Annotated[
        int,
        Option(
            "Pairs that are fused at once. A CPU is busy with one; a GPU may be faster with two.",
            group=LIMITS_GROUP,
        ),
    ] = 1
    max_queue: Annotated[
        int,
        Option(
            "Requests that may wait; others are answered with 503 and Retry-After.",
            group=LIMITS_GROUP,
        ),
    ] = 16
    max_wait: Annotated[
        float,
        Option(
            "Seconds that a request may wait before it is begun; then it is answered with 504.",
            group=LIMITS_GROUP,
            metavar="SECONDS",
        ),
    ] = 30.0
    max_body_mib: Annotated[
        int, Option("Largest body of a request in MiB; larger ones get 413.", group=LIMITS_GROUP)
    ] = 64
    max_megapixels: Annotated[
        float,
        Option(
            "Largest source of a request in millions of pixels, checked before an image file is decoded.",
            group=LIMITS_GROUP,
        ),
    ] = 48.0
    grace: Annotated[
        float,
        Option(
            "Seconds that requests have to end when the service is stopped.",
            group=LIMITS_GROUP,
            metavar="SECONDS",
        ),
    ] = 30.0

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        check_range("concurrency", self.concurrency, 1, MAX_CONCURRENCY)
        check_range("max_queue", self.max_queue, 0, MAX_QUEUE)
        check_range("max_body_mib", self.max_body_mib, 1, MAX_BODY_MIB, "MiB")
        check_minimum("max_megapixels", self.max_megapixels, 0.01)
        check_range("max_megapixels", self.max_megapixels, 0, MAX_MEGAPIXELS)
        for name in ("max_wait", "grace"):
            check_seconds(name, getattr(self, name))

    @property
    def max_pixels(self) -> int:
        """Largest source of a request in pixels."""
        return round(self.max_megapixels * 1e6)


@dataclass(frozen=True, kw_only=True)
class ReplicaOptions:
    """Replicas of a service on Ray Serve."""

    replicas: Annotated[
        tuple[int, int] | None,
        Option(
            "Fewest and most processes that serve on Ray, which starts more while requests wait. 1,4 with an address; "
            "one process without Ray if neither is given.",
            group=CLUSTER_GROUP,
        ),
    ] = None
    gpus: Annotated[
        float,
        Option("GPUs of each replica; 0.5 lets two share one.", group=CLUSTER_GROUP),
    ] = 0.0

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        check_range("gpus", self.gpus, 0, MAX_GPUS)
        if self.gpus > 1 and not self.gpus.is_integer():
            raise InputError(f"{self.gpus:g}; expected a whole number, or less than 1", subject="gpus")
        low, high = self.replicas or DEFAULT_REPLICAS
        if (low, high) != self.bounds or not 1 <= low <= high <= MAX_REPLICAS:
            raise InputError(
                f"{low:g},{high:g}; expected MIN,MAX with 1 <= MIN <= MAX <= {MAX_REPLICAS}",
                subject="replicas",
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most replicas."""
        low, high = self.replicas or DEFAULT_REPLICAS
        return int(low), int(high)
