"""Static alignment of two fixed cameras: a homography in the bundle, applied to one source before fusing.

`matrix` maps a pixel (x, y, 1) of the bundle's frame to the pixel of the moved source, at the bundle's size, that
belongs there. Pixel centres are whole numbers: (0, 0) is the centre of the pixel at the top left, as in OpenCV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import Frame

if TYPE_CHECKING:
    from tcmoa_runtime.manifest import ManifestReader

KEY: Final = "alignment"
"""Where bundle.json holds it."""
MODELS: Final = ("identity", "translation", "similarity", "affine", "homography")
"""What the matrix may do, from the simplest on."""
FARTHEST: Final = 0.5
"""How far a corner of the frame may move, in longer sides of it; beyond, little of the picture would be left."""
LEAST_AREA: Final = 0.1
"""Area of the source that the frame must at least cover, in areas of the frame."""

Source = Literal["x", "y"]
Matrix = NDArray[np.float64]
Rows = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Alignment:
    """The entry `alignment` of bundle.json.

    source: `x` or `y`, the one that is moved.
    rows: the matrix, row by row.
    model: one of `MODELS`.
    residual_px: how sure it is, in pixels of the bundle's frame; scores: gradient correlation on pairs that had no
    part in the estimate, without and with it; pairs, seed: what it was estimated from.
    """

    source: Source
    rows: Rows
    model: str
    residual_px: float
    score_before: float
    score_after: float
    pairs: int
    seed: int

    @property
    def matrix(self) -> Matrix:
        """[3, 3], from pixels (x, y, 1) of the frame to pixels of the moved source."""
        return np.array(self.rows, np.float64)

    def to_json(self) -> dict[str, Any]:
        """The entry as it stands in bundle.json."""
        return {
            "source": self.source,
            "matrix": [list(row) for row in self.rows],
            "model": self.model,
            "residual_px": self.residual_px,
            "score_before": self.score_before,
            "score_after": self.score_after,
            "pairs": self.pairs,
            "seed": self.seed,
        }


def read_alignment(reader: ManifestReader, size: tuple[int, int]) -> Alignment | None:
    """The alignment of a manifest for frames of `size` (height, width), None where it has none.

    Raises BundleError where an entry is missing, no finite number, or the matrix would tear the picture apart.
    """
    if KEY not in reader.values:
        return None
    part = reader.part(KEY)
    source: Source = part.get("source", str, among=("x", "y"))
    figures = {name: part.get(name, float) for name in ("residual_px", "score_before", "score_after")}
    numbers = {name: part.get(name, int) for name in ("pairs", "seed")}
    model = part.get("model", str, among=MODELS)
    matrix = part.get("matrix", list)
    rows = [row for row in matrix if isinstance(row, list) and len(row) == 3]
    if len(matrix) != 3 or len(rows) != 3:
        part.refuse("matrix", "three lists of three numbers")
    values = [[float(v) if _is_number(v) else math.nan for v in row] for row in rows]
    problem = matrix_problem(np.array(values), size)
    if problem is not None:
        part.refuse("matrix", f"one that moves the frame a little, but {problem}")
    first, second, third = ((row[0], row[1], row[2]) for row in values)
    return Alignment(source, (first, second, third), model, **figures, **numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1 << 20


def corners(size: tuple[int, int]) -> Matrix:
    """[3, 4]: the centres of the frame's corner pixels as (x, y, 1), around it; `size` is (height, width)."""
    right, bottom = size[1] - 1.0, size[0] - 1.0
    return np.array([[0, right, right, 0], [0, 0, bottom, bottom], [1, 1, 1, 1]], np.float64)


def moved(matrix: Matrix, points: Matrix) -> Matrix:
    """[2, N]: where `matrix` maps points [3, N]."""
    mapped = matrix @ points
    return np.asarray(mapped[:2] / mapped[2])


def matrix_problem(matrix: Matrix, size: tuple[int, int]) -> str | None:
    """What is wrong with a matrix [3, 3] for frames of `size` (height, width), or None."""
    if not np.isfinite(matrix).all():
        return "it holds something that is no finite number"
    around = corners(size)
    depth = (matrix @ around)[2]
    if not (depth > 1e-3).all():  # the line at infinity crosses the frame, or comes near
        return "it maps a part of the frame to infinity"
    x, y = moved(matrix, around)
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    frame = max((size[0] - 1.0) * (size[1] - 1.0), 1.0)
    if area < LEAST_AREA * frame:
        return f"it maps the frame to {area / frame:.2g} of its area"
    # Convex and in the order that it had, or the picture would fold.
    ax, ay = np.roll(x, -1) - x, np.roll(y, -1) - y
    if not (ax * np.roll(ay, -1) - ay * np.roll(ax, -1) > 0).all():
        return "it folds the frame"
    farthest = float(np.hypot(x - around[0], y - around[1]).max())
    if farthest > FARTHEST * max(size):
        return f"it moves a corner by {farthest:.0f} pixels, more than {FARTHEST * max(size):.0f}"
    return None


class Warp:
    """Moves frames by a matrix: bilinear, and beyond the source's edge its edge pixels go on.

    The lookup is made once, in fixed point (1/32 of a pixel, within a grey level of `cv2.warpPerspective`): 1.2 ms a
    frame of 640x480x3 on one core where computing it anew takes 2 to 6.
    """

    def __init__(self, matrix: Matrix, size: tuple[int, int]) -> None:
        """`matrix` [3, 3] as in `Alignment`, for frames of `size` (height, width)."""
        import cv2

        height, width = size
        x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
        places = [((row[0] * x + row[1] * y + row[2]) / depth).astype(np.float32) for row in matrix[:2]]
        self._places, self._weights = cv2.convertMaps(places[0], places[1], cv2.CV_16SC2)

    @classmethod
    def of(cls, alignment: Alignment, size: tuple[int, int]) -> Self:
        """The warp of an alignment."""
        return cls(alignment.matrix, size)

    def __call__(self, frame: Frame) -> Frame:
        """A frame [H, W, C] of the size told, moved."""
        import cv2

        result = cv2.remap(
            frame, self._places, self._weights, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(result, np.uint8).reshape(frame.shape)
