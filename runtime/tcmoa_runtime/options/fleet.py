"""Options of `tcmoa fleet`: its page, and for each pair of cameras where its stream runs and when it is restarted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option, check_choices
from tcmoa_runtime.web.access import choose_token
from tcmoa_runtime.web.address import DEFAULT_HOST, Address, parse_page

Restart: TypeAlias = Literal["failure", "always", "never"]
"""When a stream that has ended is started again.

failure: after an error, and when a live source ends. always: also when files end, which are played again. never.
"""

PLACEMENT_GROUP: Final = "Placement"
RESTART_GROUP: Final = "Restart"
FLEET_PAGE_GROUP: Final = "Page of the fleet"
DEFAULT_FLEET_PORT: Final = 8090
MAX_CPUS: Final = 1024
MAX_GPUS: Final = 64
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Where the stream of a pair runs, and when it is restarted."""

    cpus: Annotated[
        float,
        Option(
            "CPUs that the stream takes of its node, e.g. 0.5; also its threads, if not given.",
            group=PLACEMENT_GROUP,
        ),
    ] = 1.0
    gpus: Annotated[
        float,
        Option(
            "GPUs that the stream takes of its node; below 1, streams share a GPU.", group=PLACEMENT_GROUP
        ),
    ] = 0.0
    labels: Annotated[
        Mapping[str, str],
        Option(
            "Labels of Ray that the node must have, e.g. {zone = 'gate'}.",
            group=PLACEMENT_GROUP,
            metavar="TABLE",
        ),
    ] = field(default_factory=dict)
    restart: Annotated[
        Restart,
        Option(
            "failure restarts after an error and when a live source ends; always also when files end; never does "
            "neither.",
            group=RESTART_GROUP,
        ),
    ] = "failure"
    page: Annotated[
        str,
        Option(
            "Address of the stream's own live page on its node; a port of 0 is any free port; off for none.",
            metavar="HOST:PORT",
        ),
    ] = f"{DEFAULT_HOST}:0"
    token: Annotated[
        str | None,
        Option("Token of the live page; generated if its address is not on loopback.", metavar="TOKEN"),
    ] = None

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        check_choices(self)
        _check_amount("cpus", self.cpus, MAX_CPUS)
        _check_amount("gpus", self.gpus, MAX_GPUS)
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise InputError(
                f"{self.gpus:g}; expected a whole number, or less than 1 to share a GPU", subject="gpus"
            )
        for name, value in self.labels.items():
            if not (_LABEL.fullmatch(name) and _LABEL_VALUE.fullmatch(value)):
                raise InputError(
                    f"{name!r} = {value!r}; expected names and values of letters, digits, - _ and .",
                    subject="labels",
                )
        address = self.page_address
        choose_token(self.token, is_loopback=address is None or address.is_loopback)

    @property
    def page_address(self) -> Address | None:
        """Address of the live page; None if there is none."""
        return parse_page(self.page, default_port=0)


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """How a fleet is watched."""

    page: Annotated[
        str,
        Option(
            "Address of the page that lists all pairs; a port of 0 is any free port; off for none.",
            group=FLEET_PAGE_GROUP,
            metavar="HOST:PORT",
        ),
    ] = f"{DEFAULT_HOST}:{DEFAULT_FLEET_PORT}"

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        parse_page(self.page, default_port=DEFAULT_FLEET_PORT)

    @property
    def page_address(self) -> Address | None:
        """Address of the page; None if there is none."""
        return parse_page(self.page, default_port=DEFAULT_FLEET_PORT)


def _check_amount(subject: str, value: float, maximum: float) -> None:
    if not (math.isfinite(value) and 0 <= value <= maximum):
        raise InputError(f"{value:g}; expected 0 to {maximum:g}", subject=subject)
