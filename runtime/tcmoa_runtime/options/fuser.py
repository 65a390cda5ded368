"""Options of all commands that load a bundle and fuse with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from tcmoa_runtime.contract import MAX_PROMPT
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import DEFAULT_PERCENTILES, check_percentiles
from tcmoa_runtime.options.option import Option, check_choices, check_range
from tcmoa_runtime.typing import BackendChoice, FitMode, Percentiles

BACKEND_GROUP = "Backend"
PROMPT_GROUP = "Prompt"
TRUST_ENGINES_HELP: Final = (
    "Load engines that were not built by this user, too. An engine is native code: trust whoever built it."
)


@dataclass(frozen=True, kw_only=True)
class FuserOptions:
    """Options for loading a bundle, and the initial prompt."""

    backend: Annotated[
        BackendChoice,
        Option(
            "Backend that runs the graph. auto: an engine that runs on this machine, else the fastest installed.",
            group=BACKEND_GROUP,
        ),
    ] = "auto"
    threads: Annotated[
        int | None, Option("Number of CPU threads; all cores if not given.", group=BACKEND_GROUP)
    ] = None
    trust_engines: Annotated[
        bool,
        Option(TRUST_ENGINES_HELP, group=BACKEND_GROUP),
    ] = False
    prompt_scale: Annotated[
        float | None,
        Option(
            "Alpha of Eq. 8: 0 gives equal shares, above 1 a sharper choice; the bundle's default if not given.",
            group=PROMPT_GROUP,
            metavar="ALPHA",
        ),
    ] = None
    prompt_shift: Annotated[
        float | Path | None,
        Option(
            "Beta of Eq. 8: above 0 favors x, below 0 favors y; or a gray image: black is -0.5, 128 is 0, white is "
            "+0.5. The bundle's default if not given.",
            group=PROMPT_GROUP,
            metavar="BETA|MASK.png",
        ),
    ] = None
    fit: Annotated[
        FitMode | None,
        Option(
            "How frames of another size than the bundle's are fused: refuse them, resize them (loses detail), pad "
            "smaller ones, cut larger ones into overlapping tiles, or auto, which pads and tiles images but refuses "
            "frames of streams. By default auto for images and exact for streams."
        ),
    ] = None
    stretch: Annotated[
        Percentiles, Option("Percentiles of images with more than 8 bits that become black and white.")
    ] = DEFAULT_PERCENTILES

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        check_choices(self)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"{self.threads}; expected 1 or more", subject="threads")
        check_percentiles(self.stretch)
        for name, value in (("prompt_scale", self.prompt_scale), ("prompt_shift", self.prompt_shift)):
            if isinstance(value, int | float):
                check_range(name, value, -MAX_PROMPT, MAX_PROMPT)
