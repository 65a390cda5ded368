"""Beta of Eq. 8 as text of the command line: a number, or the path of a painted mask."""

from __future__ import annotations

from pathlib import Path

from tcmoa_runtime.cli.options import TextForm, parse_number
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES


def parse_shift(text: str) -> float | Path:
    """Parse beta: a number, or the path of an image."""
    if Path(text).suffix.lower() in IMAGE_SUFFIXES:
        return Path(text)
    try:
        float(text)
    except ValueError:
        raise InputError(f"{text!r}; expected a number, or an image, e.g. mask.png") from None
    return parse_number(text)


SHIFT_FORM = TextForm(parse_shift, str, "BETA|MASK.png")
