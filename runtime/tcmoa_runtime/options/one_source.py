"""Choices of one source of `tcmoa stream`, in place of or beside those of both sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Annotated

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option
from tcmoa_runtime.options.source import SOURCES_GROUP, RawFormat, SourceOptions
from tcmoa_runtime.typing import SourceName


@dataclass(frozen=True, kw_only=True)
class OneSourceOptions:
    """Options of one source, in place of or beside those of both sources."""

    rate_y: Annotated[
        Fraction | None, Option("Frames per second of y, if different from x.", group=SOURCES_GROUP)
    ] = None
    raw_x: Annotated[
        RawFormat | None,
        Option("Format of raw video on stdin as x, e.g. 640x480:gray16le.", group=SOURCES_GROUP),
    ] = None
    raw_y: Annotated[RawFormat | None, Option("Format of raw video on stdin as y.", group=SOURCES_GROUP)] = (
        None
    )
    option_x: Annotated[
        list[str],
        Option(
            "Option of FFmpeg for x, e.g. rtsp_transport=tcp; format=NAME sets the input format. Can be repeated.",
            group=SOURCES_GROUP,
            metavar="NAME=VALUE",
        ),
    ] = field(default_factory=list)
    option_y: Annotated[
        list[str],
        Option("Option of FFmpeg for y. Can be repeated.", group=SOURCES_GROUP, metavar="NAME=VALUE"),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        try:
            SourceOptions(rate=self.rate_y)
        except InputError as error:
            raise error.with_subject("rate_y") from error
        _parse_settings(self.option_x, "option_x")
        _parse_settings(self.option_y, "option_y")

    def apply_to(self, options: SourceOptions, side: SourceName) -> SourceOptions:
        """Return the options of one source from those of both."""
        if side == "x":
            return replace(options, raw=self.raw_x, ffmpeg=_parse_settings(self.option_x, "option_x"))
        ffmpeg = _parse_settings(self.option_y, "option_y")
        return replace(options, rate=self.rate_y or options.rate, raw=self.raw_y, ffmpeg=ffmpeg)


def _parse_settings(texts: Sequence[str], subject: str) -> dict[str, str]:
    """Parse a list of NAME=VALUE."""
    settings = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not (name and mark):
            raise InputError(f"{text!r}; expected NAME=VALUE", subject=subject)
        settings[name] = value
    return settings
