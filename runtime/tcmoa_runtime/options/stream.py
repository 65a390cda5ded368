"""Choices of `tcmoa stream`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias, get_args

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.fuser import PROMPT_GROUP
from tcmoa_runtime.options.option import Option, check_choice, check_seconds
from tcmoa_runtime.options.source import SourceOptions
from tcmoa_runtime.typing import SourceName

OnLoss: TypeAlias = Literal["hold", "pass", "pass-x", "pass-y", "stop"]
"""What a stream does while a source is lost.

hold: fuse the last frame of the lost source again for some time, then pass the other source alone. pass: pass the
other source alone, not fused. pass-x, pass-y: pass that source alone, and emit nothing while it is the lost one.
stop: end the stream.
"""

ImagesBy: TypeAlias = Literal["name", "place"]
"""How the images of two folders are paired: by equal names or numbers, or in their order."""

Offset: TypeAlias = float | Literal["auto", "timestamps"]
"""Seconds between the clocks of two sources, or how they are found."""

RAMP_SECONDS: Final = 0.3
"""Default duration of a change of the prompt: short enough to feel direct, long enough to hide the step."""
MIN_DEFLICKER_SECONDS: Final = 0.01
MIN_HOLD_EXTREMES_SECONDS: Final = 0.01
MAX_REUSE_LEVELS: Final = 255

_PAIRING, OUTPUT_GROUP = "Pairing", "Output"


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How two sources are opened, paired by time and fused."""

    lead: Annotated[
        SourceName,
        Option("Source whose frames set the pace; each is paired with a frame of the other.", group=_PAIRING),
    ] = "x"
    offset: Annotated[
        Offset,
        Option(
            "Seconds added to the times of the source that does not lead. By default, two files start together. "
            "auto measures the offset from the motion in both sources; timestamps takes the times of both files as "
            "of one clock.",
            group=_PAIRING,
            metavar="SECONDS|auto|timestamps",
        ),
    ] = 0.0
    tolerance: Annotated[
        float | None,
        Option(
            "Seconds between two frames from which the other source counts as lost. By default, 1.5 frame intervals "
            "of the slower source and 20 ms.",
            group=_PAIRING,
            metavar="SECONDS",
        ),
    ] = None
    on_loss: Annotated[
        OnLoss,
        Option(
            "While a source is lost: hold fuses its last frame again for some time and then acts as pass; pass emits "
            "the other source unfused; pass-x and pass-y emit only that source; stop ends the stream.",
            group=_PAIRING,
        ),
    ] = "hold"
    hold: Annotated[
        float,
        Option(
            "Seconds for which hold fuses the last frame of a lost source.", group=_PAIRING, metavar="SECONDS"
        ),
    ] = 2.0
    images_by: Annotated[
        ImagesBy,
        Option(
            "How the images of two folders are paired: name pairs equal names, or else equal numbers in the "
            "names; place pairs them in their order.",
            group=_PAIRING,
        ),
    ] = "name"
    wait: Annotated[
        float,
        Option(
            "Seconds that a live frame may wait for a partner that is nearer in time.",
            group=_PAIRING,
            metavar="SECONDS",
        ),
    ] = 0.0
    deflicker: Annotated[
        float,
        Option(
            "Time constant in seconds of the filter that removes flicker where nothing moves, e.g. 0.5; 0 is off.",
            group=OUTPUT_GROUP,
            metavar="SECONDS",
        ),
    ] = 0.0
    hold_extremes: Annotated[
        float,
        Option(
            "Time constant in seconds that smooths the extremes by which a wrapped network stretches each picture, "
            "e.g. 2; 0 takes each picture's own, which flickers.",
            group=OUTPUT_GROUP,
            metavar="SECONDS",
        ),
    ] = 0.0
    reuse: Annotated[
        float | None,
        Option(
            "Emit the last fused image again while no block of 8x8 pixels of either source changes by more gray "
            "levels on average; 0 reuses it only for identical sources. Off by default.",
            group=OUTPUT_GROUP,
            metavar="LEVELS",
        ),
    ] = None
    frames: Annotated[
        int | None, Option("Number of frames after which the stream ends.", group=OUTPUT_GROUP)
    ] = None
    ramp: Annotated[
        float,
        Option("Duration in seconds of a change of the prompt.", group=PROMPT_GROUP, metavar="SECONDS"),
    ] = RAMP_SECONDS
    source_x: SourceOptions = field(default_factory=SourceOptions)
    """How x is opened, if it is given as text."""
    source_y: SourceOptions = field(default_factory=SourceOptions)
    """How y is opened, if it is given as text."""

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choice("lead", self.lead, get_args(SourceName))
        check_choice("images_by", self.images_by, get_args(ImagesBy))
        check_choice("on_loss", self.on_loss, get_args(OnLoss))
        _check_offset(self.offset)
        if self.tolerance is not None:
            check_seconds("tolerance", self.tolerance)
        for name in ("hold", "wait", "ramp"):
            check_seconds(name, getattr(self, name))
        if self.deflicker != 0:
            check_seconds("deflicker", self.deflicker, minimum=MIN_DEFLICKER_SECONDS)
        if self.hold_extremes != 0:
            check_seconds("hold_extremes", self.hold_extremes, minimum=MIN_HOLD_EXTREMES_SECONDS)
        if self.reuse is not None:
            check_reuse(self.reuse)
        if self.frames is not None and (not isinstance(self.frames, int) or self.frames < 1):
            raise InputError(f"{self.frames!r}; expected a whole number, 1 or more", subject="frames")

    def source(self, side: SourceName) -> SourceOptions:
        """Return how a source is opened."""
        return self.source_x if side == "x" else self.source_y


def _check_offset(offset: Offset) -> None:
    is_number = isinstance(offset, int | float) and not isinstance(offset, bool) and math.isfinite(offset)
    if not is_number and offset not in ("auto", "timestamps"):
        raise InputError(f"{offset!r}; expected seconds, auto or timestamps", subject="offset")


def check_reuse(tolerance: float) -> float:
    """Return a tolerance of reuse in gray levels.

    Raises:
        InputError: It is not a number from 0 to 255.
    """
    is_number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not (is_number and 0 <= tolerance <= MAX_REUSE_LEVELS):  # NaN fails here
        raise InputError(f"{tolerance!r}; expected 0 to {MAX_REUSE_LEVELS} gray levels", subject="reuse")
    return float(tolerance)
