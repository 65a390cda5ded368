"""Static alignment of two fixed cameras from sample pairs: one homography for all of them.

What the two sources share is where edges are and how they lie, not which side is brighter. So each image becomes a
plane of double-angle gradients,

    f = (gx^2 - gy^2, 2 gx gy) / (|g| n)        n: RMS gradient around the pixel, plus a floor for noise

which inverting the contrast leaves as it is, and the score of a matrix is the normalised correlation of the planes,
the mean over the pairs. It is found from coarse to fine: on a small frame by trying rotations and zooms, and all
shifts at once by Fourier transforms, summed over the pairs before the best is chosen (as correlation planes are in
particle image velocimetry: Meinhart, Wereley & Santiago 2000); then by Gauss-Newton steps in the group of the model
(compositional, Baker & Matthews 2004; gain of each pair eliminated as in ECC, Evangelidis & Psarakis 2008), each pair
weighted by what it can tell.

The pairs are split into folds. Each fold's pairs are scored by a matrix that the other folds gave from scratch; the
simplest model within one standard error of the best is taken, and the spread of the folds' matrices is the delete-group
jackknife's standard error (Efron & Tibshirani 1993) of the matrix that all pairs give.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft  # type: ignore[import-untyped]

from tcmoa_calibration.samples import Sample, check_count, read_pairs
from tcmoa_runtime.alignment import KEY, MODELS, Alignment, Matrix, Source, Warp, matrix_problem, moved
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import check_target, derive_bundle
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import Frame, check_writable, resize_frame, to_frame, write_image
from tcmoa_runtime.pairs import PairPaths

Plane = NDArray[np.float32]

LEAST_PAIRS: Final = 4
MOST_PAIRS: Final = 32
LEAST_SCORE: Final = 0.08
"""Gradient correlation, on pairs that had no part in the estimate, below which there is no alignment to speak of."""
MOST_RESIDUAL: Final = 1.5
"""Pixels of standard error, RMS over the frame, beyond which a matrix is refused."""
LEAST_SIDE: Final = 48
"""Pixels of a frame's shorter side, below which there is too little to compare."""

FOLDS: Final = 5
ROTATIONS: Final = np.deg2rad(np.arange(-6.0, 6.1, 1.5))
ZOOMS: Final = np.arange(0.88, 1.121, 0.03)
REACH: Final = 1 / 8
"""Shifts that are tried, in longer sides of the frame, either way."""
SMALLEST: Final = 96
"""Longer side that halving the frame does not go below."""
CHOOSING: Final = 400
"""Longer side up to which the model is chosen; only the chosen one is refined beyond."""
LARGEST: Final = 800
"""Longer side beyond which frames are looked at reduced."""

_BEFORE, _AROUND, _AFTER = 1.0, 6.0, 0.7  # sigmas in pixels of the level: of noise, of n, of the planes
_FLOOR, _MOST = 2.0, 2.5  # grey levels per pixel; |f| of a lone edge
_BORDER = 2
_STEPS, _STILL = 12, 0.02  # Gauss-Newton steps at most; pixels of the level at which they have arrived


@dataclass(frozen=True)
class Estimate:
    """What pairs tell about the two cameras.

    alignment: the entry for bundle.json. scores: gradient correlation by model on pairs that had no part in it, of
    those that were tried. shift_px: mean displacement over the frame. per_pair: (before, after) by the pair's name.
    """

    alignment: Alignment
    scores: dict[str, float]
    shift_px: float
    per_pair: dict[str, tuple[float, float]]

    @property
    def already_aligned(self) -> bool:
        """Whether nothing was found to be gained by moving anything."""
        return self.alignment.model == "identity"


@dataclass(frozen=True)
class Aligned:
    """A bundle that was written, what its alignment rests on, and a line for each pair that was left out."""

    bundle: Bundle
    estimate: Estimate
    skipped: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "bundle": str(self.bundle.path),
            **self.estimate.alignment.to_json(),
            "shift_px": self.estimate.shift_px,
            "already_aligned": self.estimate.already_aligned,
            "scores": self.estimate.scores,
            "skipped": self.skipped,
        }


def calibrate_alignment(
    bundle: Bundle | str | os.PathLike[str],
    pairs: Sequence[PairPaths],
    out: str | os.PathLike[str],
    *,
    move: str = "y",
    model: str | None = None,
    most: int = MOST_PAIRS,
    seed: int = 0,
    replace: bool = False,
    overwrite: bool = False,
    preview: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Aligned:
    """Estimate how `move` (`x` or `y`) has to be moved to lie on the other, and write a bundle that does so.

    Frames are resized to the bundle's size one by one, as the Fuser does it. `model` is one of `MODELS`, None to
    choose. A bundle that aligns already is refused, unless `replace`: the new alignment, which is estimated from
    frames as the cameras give them, then takes the place of the old one. `preview`: a picture of edges before and
    after. Raises InputError when the pairs do not tell it well enough, and where something cannot be read or written;
    nothing is written then.
    """
    check_target(Path(out), overwrite=overwrite)
    if preview is not None:
        check_writable(preview)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if opened.alignment is not None and not replace:
        raise InputError(
            f"{opened.path}: aligns {opened.alignment.source} already; add --replace to estimate it anew, or give the "
            f"bundle from before"
        )
    size = opened.contract.height, opened.contract.width
    say("reading pairs")
    # Two cameras need not have one resolution.
    samples, skipped = read_pairs(pairs, size, most=most, least=LEAST_PAIRS, seed=seed, one_size=False)
    estimate = estimate_alignment(samples, move=move, model=model, seed=seed, say=say)
    if preview is not None:
        write_image(preview, preview_picture(samples, estimate))
    written = derive_bundle(opened, out, {KEY: estimate.alignment.to_json()}, overwrite=overwrite)
    return Aligned(written, estimate, skipped)


def estimate_alignment(
    samples: Sequence[Sample],
    *,
    move: str = "y",
    model: str | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Estimate:
    """The alignment of pairs of one size; options and errors as in `calibrate_alignment`."""
    source: Source = "x" if move == "x" else "y"
    if move not in ("x", "y"):
        raise InputError(f"move is {move!r}: expected x or y, the source that is to be moved")
    if model is not None and model not in MODELS:
        raise InputError(f"model is {model!r}: expected {', '.join(MODELS)}")
    check_count(len(samples), len(samples), LEAST_PAIRS)
    size = samples[0].x.shape[0], samples[0].x.shape[1]
    if min(size) < LEAST_SIDE:
        raise InputError(
            f"frames are {size[1]}x{size[0]}: too small to be aligned, expected {LEAST_SIDE} pixels a side or more"
        )
    say(f"comparing {len(samples)} pairs")
    still, moving = (
        [to_frame(getattr(s, name), name, 1)[..., 0] for s in samples]
        for name in (("y", "x") if source == "x" else ("x", "y"))
    )
    levels = [Level(still, moving, size, at) for at in level_sizes(size)]
    work = _Work(levels, len(samples))
    say("choosing what the cameras differ by" if model is None else f"estimating the {model}")
    tried = MODELS if model is None else (model,)
    choosing = [level for level in levels if max(level.size) <= CHOOSING] or levels[:1]
    starts = work.starts(tried, choosing)
    scores = {name: work.held_scores(starts[name], choosing[-1]) for name in tried}
    chosen = _simplest(scores)
    say(f"refining the {chosen}")
    rest = levels[len(choosing) :]
    matrices = [
        work.refined(chosen, start, rest, who) for start, who in zip(starts[chosen], work.parts, strict=True)
    ]
    before = levels[-1].scores(np.eye(3), work.everyone)
    after = work.held_scores(matrices, levels[-1])
    spread = matrices[1:]
    if chosen == "identity" and model is None:  # how sure that is, the least that could move tells
        spread = [
            work.refined("translation", m, rest, who)
            for m, who in zip(starts["translation"][1:], work.parts[1:], strict=True)
        ]
    whole = normaliser(size)
    in_pixels = [whole @ m @ np.linalg.inv(whole) for m in spread]
    residual = _jackknife(in_pixels, size)
    matrix = np.eye(3)
    if chosen != "identity":  # which is to be exact
        matrix = whole @ matrices[0] @ np.linalg.inv(whole)
        matrix /= matrix[2, 2]
    _refuse_doubtful(float(after.mean()), residual, matrix, size)
    first, second, third = ((float(r[0]), float(r[1]), float(r[2])) for r in matrix)
    alignment = Alignment(
        source,
        (first, second, third),
        chosen,
        round(residual, 4),
        round(float(before.mean()), 4),
        round(float(after.mean()), 4),
        len(samples),
        seed,
    )
    points = frame_points(size)
    return Estimate(
        alignment,
        {name: round(float(values.mean()), 4) for name, values in scores.items()},
        round(float(np.hypot(*(moved(matrix, points) - points[:2])).mean()), 3),
        {s.name: (float(b), float(a)) for s, b, a in zip(samples, before, after, strict=True)},
    )


def _simplest(scores: dict[str, NDArray[np.float64]]) -> str:
    """The simplest model that is within one standard error of the best, pair by pair."""
    best = max(scores.values(), key=lambda values: float(values.mean()))
    for name in MODELS:
        if name in scores:
            loss = best - scores[name]
            if float(loss.mean()) <= float(loss.std(ddof=1)) / np.sqrt(len(loss)):
                return name
    raise AssertionError("the best is within any distance of itself")


def _jackknife(matrices: Sequence[Matrix], size: tuple[int, int]) -> float:
    """Standard error in pixels, RMS over the frame, from matrices that each leave one fold out."""
    points = frame_points(size)
    places = np.stack([moved(matrix, points) for matrix in matrices])  # [folds, 2, points]
    apart = ((places - places.mean(0)) ** 2).sum(1)
    count = len(matrices)
    return float(np.sqrt((count - 1) / count * apart.sum(0).mean()))


def _refuse_doubtful(score: float, residual: float, matrix: Matrix, size: tuple[int, int]) -> None:
    longest = max(size)
    advice = (
        f"give more pairs, with structure that both sources show, and bring the cameras within {REACH * longest:.0f} "
        f"pixels, 6 degrees and 12 % of each other first"
    )
    if not score >= LEAST_SCORE:
        raise InputError(
            f"the pairs do not tell how the cameras lie to each other: gradient correlation of pairs held out is "
            f"{score:.3f} after alignment, at least {LEAST_SCORE} is needed; {advice}"
        )
    if not residual <= MOST_RESIDUAL:
        raise InputError(
            f"the pairs tell how the cameras lie to each other to {residual:.2f} pixels only, at most {MOST_RESIDUAL} "
            f"are accepted; {advice}, or name a simpler --model"
        )
    problem = matrix_problem(matrix, size)
    if problem is not None:
        raise InputError(f"the pairs give no sane alignment, {problem}; {advice}")


def frame_points(size: tuple[int, int], count: int = 9) -> Matrix:
    """[3, count^2]: points (x, y, 1) of a grid over a frame of (height, width), its corners among them."""
    x, y = np.meshgrid(np.linspace(0, size[1] - 1, count), np.linspace(0, size[0] - 1, count))
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size)])


def normaliser(size: tuple[int, int], at: tuple[int, int] | None = None) -> Matrix:
    """[3, 3], from centred coordinates (1 is half the longer side) to pixels of the frame resized to `at`."""
    half = max(size) / 2
    pixels = np.array([[half, 0, (size[1] - 1) / 2], [0, half, (size[0] - 1) / 2], [0, 0, 1]])
    if at is None or at == size:
        return pixels
    across, down = at[1] / size[1], at[0] / size[0]
    resized = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    return np.asarray(resized @ pixels)


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of the frames to look at, the smallest first."""
    scale = min(1.0, LARGEST / max(size))
    sizes = [(round(size[0] * scale), round(size[1] * scale))]
    while max(sizes[-1]) >= 2 * SMALLEST and min(sizes[-1]) >= LEAST_SIDE:
        sizes.append((round(sizes[-1][0] / 2), round(sizes[-1][1] / 2)))
    return sizes[::-1]


def edge_plane(image: NDArray[np.uint8]) -> Plane:
    """The double-angle gradients float32 [H, W, 2] of a grey image [H, W]."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _BEFORE)
    gx = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 16)  # half the difference of two pixels
    gy = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 16)
    energy = gx * gx + gy * gy
    around = np.sqrt(np.maximum(cv2.GaussianBlur(energy, (0, 0), _AROUND), 0)) + _FLOOR
    length = np.sqrt(energy)
    factor = np.minimum(1 / around, _MOST / np.maximum(length, 1e-6)) / np.maximum(length, 1e-6)
    plane = np.dstack([(gx * gx - gy * gy) * factor, 2 * gx * gy * factor])
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), _AFTER), np.float32)


def _generators(model: str) -> Matrix:
    """[8, parameters]: the model's directions in h00, h01, h02, h10, h11, h12, h20, h21."""
    unit = np.eye(8)
    shifts = [unit[2], unit[5]]
    if model == "translation":
        return np.array(shifts, np.float64).T
    if model == "similarity":
        return np.array([*shifts, unit[0] + unit[4], unit[3] - unit[1]], np.float64).T
    return unit[:, :6] if model == "affine" else unit


def _turned(angle: float, zoom: float) -> Matrix:
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


_POWERS: Final = tuple((p, q) for p in range(5) for q in range(5 - p))
_ALONG_X: Final = {0: (1, 1, 0), 1: (1, 0, 1), 2: (1, 0, 0), 6: (-1, 2, 0), 7: (-1, 1, 1)}
_ALONG_Y: Final = {3: (1, 1, 0), 4: (1, 0, 1), 5: (1, 0, 0), 6: (-1, 1, 1), 7: (-1, 0, 2)}
"""How x and y of a pixel (u, v) move along each of the eight directions: sign, power of u, power of v."""


def _equations(sums: Matrix) -> tuple[Matrix, Matrix]:
    """Normal equations [8, 8] and [8] from sums [5, powers] of gxx, gxy, gyy, gx r and gy r times powers of u and v."""
    column = {power: index for index, power in enumerate(_POWERS)}
    normal, right = np.zeros((8, 8)), np.zeros(8)
    for row, first, second in ((0, _ALONG_X, _ALONG_X), (1, _ALONG_X, _ALONG_Y), (2, _ALONG_Y, _ALONG_Y)):
        for i, (sign_i, p_i, q_i) in first.items():
            for j, (sign_j, p_j, q_j) in second.items():
                value = sign_i * sign_j * sums[row, column[p_i + p_j, q_i + q_j]]
                normal[i, j] += value
                if row == 1:
                    normal[j, i] += value
    for row, along in ((3, _ALONG_X), (4, _ALONG_Y)):
        for i, (sign, p, q) in along.items():
            right[i] += sign * sums[row, column[p, q]]
    return normal, right


class Level:
    """All pairs at one size. Matrices are in centred coordinates, the same at every level."""

    def __init__(
        self,
        still: Sequence[NDArray[np.uint8]],
        moving: Sequence[NDArray[np.uint8]],
        frame: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        """Grey images [H, W] of `frame` (height, width), to be looked at in `size`."""
        self.size = size
        planes = (
            [edge_plane(i if i.shape == size else resize_frame(i, size)) for i in images]
            for images in (still, moving)
        )
        self.still = [np.stack(cv2.split(plane)) for plane in next(planes)]  # [2, H, W]
        self.moving = list(next(planes))  # [H, W, 2], as remap takes it
        self._pixels = normaliser(frame, size)
        self._centred = np.linalg.inv(self._pixels)
        x, y = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
        self._x, self._y = x, y
        u = (self._centred[0, 0] * x + self._centred[0, 2]).ravel()
        v = (self._centred[1, 1] * y + self._centred[1, 2]).ravel()
        self._powers = np.stack([u**p * v**q for p, q in _POWERS]).astype(np.float32)

    @property
    def pixels_per_unit(self) -> float:
        """Pixels of this level that 1 is in centred coordinates."""
        return float(self._pixels[0, 0])

    def _places(self, matrix: Matrix) -> tuple[Plane, Plane, NDArray[np.bool_]]:
        """Where each pixel comes from, and which come from well inside the source."""
        h = self._pixels @ matrix @ self._centred
        h = (h / h[2, 2]).astype(np.float32)
        depth = h[2, 0] * self._x + h[2, 1] * self._y + 1
        x = (h[0, 0] * self._x + h[0, 1] * self._y + h[0, 2]) / depth
        y = (h[1, 0] * self._x + h[1, 1] * self._y + h[1, 2]) / depth
        height, width = self.size
        last = _BORDER + 1
        inside = (x > _BORDER) & (x < width - last) & (y > _BORDER) & (y < height - last) & (depth > 0)
        for edge in (inside[:_BORDER], inside[-_BORDER:], inside[:, :_BORDER], inside[:, -_BORDER:]):
            edge[...] = False
        return x, y, inside

    def scores(self, matrix: Matrix, who: NDArray[np.intp]) -> NDArray[np.float64]:
        """The correlation of each pair of `who`."""
        x, y, inside = self._places(matrix)
        seen = inside.astype(np.float32)
        found = []
        for index in who:
            warped = np.stack(cv2.split(cv2.remap(self.moving[index], x, y, cv2.INTER_LINEAR))) * seen
            fixed = self.still[index] * seen
            found.append(_correlation(fixed, warped)[0])
        return np.array(found)

    def step(self, matrix: Matrix, who: NDArray[np.intp]) -> tuple[Matrix, Matrix, float]:
        """Normal equations [8, 8] and [8] of a Gauss-Newton step in all of a homography, and the mean score.

        Gradients are summed over the pairs first: where a pixel lies is the same for all of them.
        """
        x, y, inside = self._places(matrix)
        seen = inside.astype(np.float32)
        xx, xy, yy, bx, by = (np.zeros(self.size, np.float32) for _ in range(5))
        total = 0.0
        half = 0.5 * self.pixels_per_unit
        for index in who:
            warped = cv2.split(cv2.remap(self.moving[index], x, y, cv2.INTER_LINEAR))
            masked = np.stack([part * seen for part in warped])
            fixed = self.still[index] * seen
            score, gain, noise = _correlation(fixed, masked)
            total += score
            if noise <= 0:
                continue
            left = fixed - np.float32(gain) * masked
            # A pair that does not fit yet must not be given up: it would take no part ever after.
            slope = max(gain, 0.02)
            a, b = slope * slope / noise, slope / noise
            for part, rest in zip(warped, left, strict=True):
                gx = cv2.Sobel(part, cv2.CV_32F, 1, 0, ksize=1, scale=half)
                gy = cv2.Sobel(part, cv2.CV_32F, 0, 1, ksize=1, scale=half)
                cv2.scaleAdd(gx * gx, a, xx, xx)
                cv2.scaleAdd(gx * gy, a, xy, xy)
                cv2.scaleAdd(gy * gy, a, yy, yy)
                cv2.scaleAdd(gx * rest, b, bx, bx)
                cv2.scaleAdd(gy * rest, b, by, by)
        planes = np.stack([(plane * seen).ravel() for plane in (xx, xy, yy, bx, by)])
        sums = (planes @ self._powers.T).astype(np.float64)
        return *_equations(sums), total / max(len(who), 1)

    def shifts(self) -> NDArray[np.float32]:
        """Correlation [rotations, zooms, pairs, shifts down, shifts right] of `ROTATIONS`, `ZOOMS` and all shifts."""
        reach = self.reach
        shape = tuple(int(fft.next_fast_len(side + reach)) for side in self.size)
        fixed = [np.conj(fft.fft2(_unit(np.dstack(tuple(plane))), shape)) for plane in self.still]
        found = np.empty((len(ROTATIONS), len(ZOOMS), len(fixed), 2 * reach + 1, 2 * reach + 1), np.float32)
        for i, angle in enumerate(ROTATIONS):
            for j, zoom in enumerate(ZOOMS):
                x, y, _ = self._places(_turned(angle, zoom))
                for k, plane in enumerate(self.moving):
                    warped = cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
                    surface = fft.ifft2(
                        fft.fft2(_unit(np.asarray(warped, np.float32)), shape) * fixed[k]
                    ).real
                    around = np.roll(surface, (reach, reach), (0, 1))
                    found[i, j, k] = around[: 2 * reach + 1, : 2 * reach + 1]
        return found

    @property
    def reach(self) -> int:
        """Pixels of this level that `REACH` is."""
        return max(1, round(max(self.size) * REACH))


def _unit(plane: Plane) -> NDArray[np.complex64]:
    """A plane [H, W, 2] as complex numbers of mean 0 and norm 1; the real part of a product is then the correlation."""
    numbers = plane[..., 0] + 1j * plane[..., 1]
    numbers = numbers - numbers.mean()
    return np.asarray(numbers / max(float(np.linalg.norm(numbers)), 1e-6), np.complex64)


def _correlation(fixed: Plane, warped: Plane) -> tuple[float, float, float]:
    """Correlation, the gain that makes `warped` most like `fixed`, and what is left of `fixed` then (squared)."""
    product = float(np.vdot(fixed, warped))
    of_fixed, of_warped = float(np.vdot(fixed, fixed)), float(np.vdot(warped, warped))
    if of_fixed < 1e-6 or of_warped < 1e-6:
        return 0.0, 0.0, 0.0
    gain = product / of_warped
    return product / np.sqrt(of_fixed * of_warped), gain, of_fixed - gain * product


class _Work:
    """Estimates from all pairs and from all but each fold's; `parts[0]` is everyone."""

    def __init__(self, levels: Sequence[Level], pairs: int) -> None:
        self.everyone = np.arange(pairs)
        self._fold = self.everyone % min(FOLDS, pairs)  # pairs come in random order
        count = int(self._fold.max()) + 1
        self.parts = [self.everyone, *(np.flatnonzero(self._fold != f) for f in range(count))]
        self._levels = levels

    def starts(self, models: Sequence[str], levels: Sequence[Level]) -> dict[str, list[Matrix]]:
        """For each model a matrix of each part, from nothing and through `levels`."""
        wanted = [m for m in MODELS[1:] if m in models]
        found: dict[str, list[Matrix]] = {"identity": [np.eye(3) for _ in self.parts]}
        surfaces = levels[0].shifts() if wanted else np.empty(0, np.float32)
        for name in wanted:
            before = found.get("similarity")
            found[name] = []
            for index, who in enumerate(self.parts):
                near = before is not None and name in ("affine", "homography")
                start = (
                    before[index] if near and before is not None else _coarse(surfaces, who, levels[0], name)
                )
                found[name].append(self.refined(name, start, levels, who))
        return found

    @staticmethod
    def refined(model: str, start: Matrix, levels: Sequence[Level], who: NDArray[np.intp]) -> Matrix:
        """The matrix of pairs `who` through `levels`, from `start`."""
        matrix = start
        for level in levels:
            matrix = _refine(level, matrix, who, model)
        return matrix

    def held_scores(self, matrices: Sequence[Matrix], level: Level) -> NDArray[np.float64]:
        """Each pair's score [pairs] by the matrix in which it had no part."""
        scores = np.empty(len(self.everyone))
        for fold, matrix in enumerate(matrices[1:]):
            out = np.flatnonzero(self._fold == fold)
            scores[out] = level.scores(matrix, out)
        return scores


def _coarse(surfaces: NDArray[np.float32], who: NDArray[np.intp], level: Level, model: str) -> Matrix:
    """The best rotation, zoom and shift of pairs `who`; of a translation the best shift."""
    mean = surfaces[:, :, who].mean(2)
    if model == "translation":
        middle = len(ROTATIONS) // 2, len(ZOOMS) // 2
        only = np.full_like(mean, -1)
        only[middle] = mean[middle]
        mean = only
    i, j, down, right = np.unravel_index(int(mean.argmax()), mean.shape)
    shift = np.eye(3)
    shift[:2, 2] = np.array([int(right) - level.reach, int(down) - level.reach]) / level.pixels_per_unit
    return _turned(float(ROTATIONS[i]), float(ZOOMS[j])) @ shift


def _refine(level: Level, matrix: Matrix, who: NDArray[np.intp], model: str) -> Matrix:
    """Gauss-Newton from `matrix`; a step that makes the score worse is halved, and given up after some halvings."""
    if model == "identity":
        return matrix
    directions = _generators(model)
    normal, right, score = level.step(matrix, who)
    for _ in range(_STEPS):
        system = directions.T @ normal @ directions
        system += np.eye(len(system)) * max(1e-6 * float(np.trace(system)) / len(system), 1e-12)
        step = directions @ np.linalg.solve(system, directions.T @ right)
        for _ in range(5):
            by = np.eye(3)
            by.flat[:8] += step
            tried = matrix @ by
            tried = tried / tried[2, 2]
            after = level.step(tried, who)
            if after[2] >= score:
                break
            step = step / 2
        else:
            return matrix
        matrix, (normal, right, score) = tried, after
        if float(np.abs(step).sum()) * level.pixels_per_unit < _STILL:
            break
    return matrix


def preview_picture(samples: Sequence[Sample], estimate: Estimate) -> Frame:
    """Edges of x in red on those of y in cyan, before on the left and after on the right; where both are, white.

    RGB [2 H, 2 W + 4, 3]: of the two pairs that show it best.
    """
    by_name = {s.name: s for s in samples}
    best = sorted(estimate.per_pair, key=lambda name: -estimate.per_pair[name][1])[:2]
    size = samples[0].x.shape[0], samples[0].x.shape[1]
    warp = Warp.of(estimate.alignment, size)
    rows = []
    for name in best:
        x, y = (to_frame(frame, "frame", 1) for frame in (by_name[name].x, by_name[name].y))
        after = (warp(x), y) if estimate.alignment.source == "x" else (x, warp(y))
        gap = np.full((size[0], 4, 3), 128, np.uint8)
        rows.append(np.hstack([_two_colours(x, y), gap, _two_colours(*after)]))
    return np.ascontiguousarray(np.vstack(rows))


def _two_colours(x: Frame, y: Frame) -> Frame:
    red, cyan = (_strength(frame[..., 0]) for frame in (x, y))
    return np.dstack([red, cyan, cyan])


def _strength(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Edges [H, W] as bright as they are stronger than what is around them."""
    plane = edge_plane(image)
    strength = np.sqrt((plane * plane).sum(2))
    return np.asarray(np.clip(strength * (255 / 1.5), 0, 255), np.uint8)
