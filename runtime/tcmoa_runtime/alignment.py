"""Static alignment of two fixed cameras: a homography in the bundle, applied to one source before fusing.

`matrix` maps a pixel (x, y, 1) of the bundle's frame to the corresponding pixel of the moved source, after
resizing the source to the bundle's size. Pixel centers are integers: (0, 0) is the center of the top left pixel, as in
OpenCV.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.manifest import MAX_NUMBER, ManifestReader
from tcmoa_runtime.typing import Frame, FrameSize, JsonObject, SourceName

MANIFEST_KEY: Final = "alignment"
"""Key of bundle.json."""

MotionModel = Literal["identity", "translation", "similarity", "affine", "homography"]
MOTION_MODELS: Final[tuple[MotionModel, ...]] = get_args(MotionModel)
"""Motion models, from the simplest to the most general."""

MAX_MOVE: Final = 0.5
"""Maximum move of a corner, as a share of the frame's longer side; beyond it little of the image is left."""
MIN_AREA: Final = 0.1
"""Minimum area of the source that the frame covers, as a share of the area of the frame."""

Matrix: TypeAlias = NDArray[np.float64]
MatrixRows: TypeAlias = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Alignment:
    """Motion of one source.

    Attributes:
        source: The source that is moved.
        rows: The matrix, row by row.
        model: Motion model of the matrix.
        residual_px: Uncertainty in pixels of the bundle's frame.
        score_before: Gradient correlation without the alignment, on pairs that the estimate did not use.
        score_after: The same with the alignment.
        pairs: Number of pairs that were used for the estimate.
        seed: Seed of the selection of these pairs.
    """

    source: SourceName
    rows: MatrixRows
    model: MotionModel
    residual_px: float
    score_before: float
    score_after: float
    pairs: int
    seed: int

    @property
    def matrix(self) -> Matrix:
        """Matrix [3, 3] from pixels (x, y, 1) of the frame to pixels of the moved source."""
        return np.array(self.rows, np.float64)

    def matrix_at(self, bundle_size: FrameSize, size: FrameSize) -> Matrix:
        """Return the matrix [3, 3] for frames of `size` instead of the bundle's, both (height, width).

        Pixel centers are scaled as `cv2.resize` does: the corner of the frame, not of a pixel, is fixed.
        """
        if size == bundle_size:
            return self.matrix
        y, x = size[0] / bundle_size[0], size[1] / bundle_size[1]
        scaling = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        return np.asarray(scaling @ self.matrix @ np.linalg.inv(scaling))

    def to_json(self) -> JsonObject:
        """Return the entry of bundle.json."""
        values = asdict(self)
        source, rows = values.pop("source"), values.pop("rows")
        return {"source": source, "matrix": [list(row) for row in rows], **values}


def read_alignment(reader: ManifestReader, size: FrameSize) -> Alignment | None:
    """Read the alignment of a manifest; None if it has none.

    Args:
        reader: The whole manifest.
        size: (height, width) of the bundle's frames.

    Raises:
        BundleError: A value is missing or not a finite number, or the matrix is not a small move of the frame.
    """
    if MANIFEST_KEY not in reader.values:
        return None
    part = reader.part(MANIFEST_KEY)
    source = part.get("source", str, among=("x", "y"))
    model = part.get("model", str, among=MOTION_MODELS)
    matrix = part.get("matrix", list)
    rows = [row for row in matrix if isinstance(row, list) and len(row) == 3]
    if len(matrix) != 3 or len(rows) != 3:
        part.refuse("matrix", "three lists of three numbers")
    values = [[_finite(value) for value in row] for row in rows]
    problem = describe_matrix_fault(np.array(values), size)
    if problem is not None:
        part.refuse("matrix", f"a small move of the frame, but {problem}")
    first, second, third = ((row[0], row[1], row[2]) for row in values)
    return Alignment(
        source="x" if source == "x" else "y",
        rows=(first, second, third),
        model=next(known for known in MOTION_MODELS if known == model),
        residual_px=part.get("residual_px", float),
        score_before=part.get("score_before", float),
        score_after=part.get("score_after", float),
        pairs=part.get("pairs", int),
        seed=part.get("seed", int),
    )


def _finite(value: object) -> float:
    """Return a number of a manifest, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) <= MAX_NUMBER else math.nan


def corner_points(size: FrameSize) -> Matrix:
    """Return the centers of the frame's corner pixels as columns (x, y, 1), [3, 4], clockwise from the top left."""
    right, bottom = size[1] - 1.0, size[0] - 1.0
    return np.array([[0, right, right, 0], [0, 0, bottom, bottom], [1, 1, 1, 1]], np.float64)


def map_points(matrix: Matrix, points: Matrix) -> Matrix:
    """Map points [3, N] (columns x, y, 1) by a matrix [3, 3] to [2, N]."""
    mapped = matrix @ points
    return np.asarray(mapped[:2] / mapped[2])


def describe_matrix_fault(matrix: Matrix, size: FrameSize) -> str | None:
    """Describe why a matrix [3, 3] is unusable for frames of `size` (height, width); None if it is usable."""
    if not np.isfinite(matrix).all():
        return "it holds a value that is not a finite number"
    corners = corner_points(size)
    depth = (matrix @ corners)[2]
    if not (depth > 1e-3).all():  # the line at infinity crosses the frame, or is close to it
        return "it maps a part of the frame to infinity"
    x, y = map_points(matrix, corners)
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    frame_area = max((size[0] - 1.0) * (size[1] - 1.0), 1.0)
    if area < MIN_AREA * frame_area:
        return f"it maps the frame to {area / frame_area:.2g} of its area"
    # The corners must stay convex and in order, or the image would fold.
    ax, ay = np.roll(x, -1) - x, np.roll(y, -1) - y
    if not (ax * np.roll(ay, -1) - ay * np.roll(ax, -1) > 0).all():
        return "it folds the frame"
    move = float(np.hypot(x - corners[0], y - corners[1]).max())
    if move > MAX_MOVE * max(size):
        return f"it moves a corner by {move:.0f} pixels, more than {MAX_MOVE * max(size):.0f}"
    return None


class Warp:
    """Warps frames by a matrix: bilinear, with edge pixels repeated outside of the source.

    The lookup table is computed once, in fixed point (1/32 of a pixel, within one gray level of
    `cv2.warpPerspective`). Warping a frame of 640x480x3 takes 1.2 ms on one core; without the table, 2 to 6 ms.
    """

    def __init__(self, matrix: Matrix, size: FrameSize) -> None:
        """Compute the lookup table.

        Args:
            matrix: [3, 3] as in `Alignment`.
            size: (height, width) of the frames.
        """
        import cv2

        height, width = size
        x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
        positions = [((row[0] * x + row[1] * y + row[2]) / depth).astype(np.float32) for row in matrix[:2]]
        self._positions, self._weights = cv2.convertMaps(positions[0], positions[1], cv2.CV_16SC2)

    @classmethod
    def from_alignment(cls, alignment: Alignment, size: FrameSize) -> Self:
        """Return the warp of an alignment for frames of `size` (height, width)."""
        return cls(alignment.matrix, size)

    def __call__(self, frame: Frame) -> Frame:
        """Warp a frame [H, W, C] of the size given to the constructor."""
        import cv2

        result = cv2.remap(
            frame, self._positions, self._weights, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(result, np.uint8).reshape(frame.shape)
