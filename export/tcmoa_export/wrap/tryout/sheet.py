"""The contact sheet of conventions that were tried: the sources, then the fused pictures, best first."""

from __future__ import annotations

import textwrap
from typing import Final

from tcmoa_export.wrap.tryout.run import TryReport
from tcmoa_runtime.contact_sheet import join_images, label_above, scale_to_height, stack_images
from tcmoa_runtime.options.wrap import Conventions
from tcmoa_runtime.typing import Frame

MAX_SHOWN: Final = 11
"""Pictures that are shown at most: with the sources three rows of four."""

NUM_COLUMNS: Final = 3
IMAGE_PX: Final = 192
"""Height of an image."""

_PX_PER_CHARACTER: Final = 8
_LABEL_LINES: Final = 3


def draw_sheet(report: TryReport, label: str = "x and y") -> Frame:
    """Draw the sheet, uint8 [H, W, 3] RGB.

    Args:
        report: What was tried.
        label: Label of the sources.
    """
    sources = [image for pair in report.pairs for image in (pair.x, pair.y)]
    tiles = [_tile(sources[:2], (label, *(f"also {pair.name}" for pair in report.pairs[1:])))]
    for number, candidate in enumerate(report.candidates[:MAX_SHOWN], 1):
        others = len(candidate.conventions) - 1
        equal = f", equal to {others} more" if others else ""
        label = f"{number}: score {candidate.score.value:.3f}{equal}"
        text = ", ".join(describe_answers(candidate.conventions[0], report.given))
        tiles.append(_tile(candidate.pictures, (label, text)))
    rows = [join_images(tiles[start : start + NUM_COLUMNS]) for start in range(0, len(tiles), NUM_COLUMNS)]
    return stack_images(rows)


def describe_answers(stated: Conventions, given: Conventions) -> list[str]:
    """Return what conventions state beyond those that were given, e.g. `range_in 0..1`."""
    known = given.given()
    return [
        f"{name} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in stated.given().items()
        if known.get(name) != value
    ]


def _tile(images: list[Frame] | tuple[Frame, ...], texts: tuple[str, ...]) -> Frame:
    """Put the images of a tile side by side, below lines of text."""
    tile = join_images([scale_to_height(image, IMAGE_PX) for image in images])
    lines = [line for text in texts for line in textwrap.wrap(text, tile.shape[1] // _PX_PER_CHARACTER)]
    lines = [*lines[:_LABEL_LINES], *[""] * (_LABEL_LINES - len(lines))]
    for line in reversed(lines):
        tile = label_above(tile, line)
    return tile
