"""Refinement: compositional Gauss-Newton steps (Baker & Matthews 2004) in the group of the motion model.

The gain of each pair is eliminated as in ECC (Evangelidis & Psarakis 2008), and each pair is weighted by its remaining
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from tcmoa_calibration.align.pyramid import MONOMIALS, Indices, PyramidLevel, correlate
from tcmoa_runtime.alignment import Matrix, MotionModel

_MAX_STEPS = 12
_MAX_HALVINGS = 5
_MIN_STEP_PX = 0.02
"""Pixels of the level; a smaller step ends the refinement."""
_MIN_GAIN = 0.02
"""A pair that does not fit yet keeps this gain: with none it would have no weight and never fit."""

_X_TERMS: Final = {0: (1, 1, 0), 1: (1, 0, 1), 2: (1, 0, 0), 6: (-1, 2, 0), 7: (-1, 1, 1)}
_Y_TERMS: Final = {3: (1, 1, 0), 4: (1, 0, 1), 5: (1, 0, 0), 6: (-1, 1, 1), 7: (-1, 0, 2)}
"""Derivatives of x and y of a pixel (u, v) by each of the eight entries of a matrix: sign, exponents of u and v."""


@dataclass(frozen=True)
class NormalEquations:
    """A Gauss-Newton step in all eight parameters of a homography.

    Attributes:
        system: [8, 8].
        right: [8].
        score: Mean correlation of the pairs at the matrix where the step starts.
    """

    system: Matrix
    right: Matrix
    score: float


def refine_through(
    levels: Sequence[PyramidLevel], start: Matrix, pairs: Indices, model: MotionModel
) -> Matrix:
    """Refine a matrix [3, 3] on each level in turn."""
    matrix = start
    for level in levels:
        matrix = refine(level, matrix, pairs, model)
    return matrix


def refine(level: PyramidLevel, start: Matrix, pairs: Indices, model: MotionModel) -> Matrix:
    """Refine a matrix [3, 3] on one level; a step that lowers the score is halved, and dropped after five halvings."""
    if model == "identity":
        return start
    matrix, directions = start, _directions(model)
    equations = normal_equations(level, matrix, pairs)
    for _ in range(_MAX_STEPS):
        system = directions.T @ equations.system @ directions
        system += np.eye(len(system)) * max(1e-6 * float(np.trace(system)) / len(system), 1e-12)
        step = directions @ np.linalg.solve(system, directions.T @ equations.right)
        for _ in range(_MAX_HALVINGS):
            moved = matrix @ _increment(step)
            moved = moved / moved[2, 2]
            after = normal_equations(level, moved, pairs)
            if after.score >= equations.score:
                break
            step = step / 2
        else:
            return matrix
        matrix, equations = moved, after
        if float(np.abs(step).sum()) * level.pixels_per_unit < _MIN_STEP_PX:
            break
    return matrix


def normal_equations(level: PyramidLevel, matrix: Matrix, pairs: Indices) -> NormalEquations:
    """Set up a step at `matrix`.

    Products of gradients are summed over the pairs first: the coordinates of a pixel are the same for all of them.
    """
    x, y, mask = level.source_coordinates(matrix)
    weights = mask.astype(np.float32)
    xx, xy, yy, bx, by = (np.zeros(level.size, np.float32) for _ in range(5))
    total = 0.0
    half = 0.5 * level.pixels_per_unit
    for index in pairs:
        warped = cv2.split(cv2.remap(level.moving[index], x, y, cv2.INTER_LINEAR))
        masked = np.stack([part * weights for part in warped])
        fixed = level.fixed[index] * weights
        score, gain, noise = correlate(fixed, masked)
        total += score
        if noise <= 0:
            continue
        residual = fixed - np.float32(gain) * masked
        slope = max(gain, _MIN_GAIN)
        a, b = slope * slope / noise, slope / noise
        for part, rest in zip(warped, residual, strict=True):
            gx = cv2.Sobel(part, cv2.CV_32F, 1, 0, ksize=1, scale=half)
            gy = cv2.Sobel(part, cv2.CV_32F, 0, 1, ksize=1, scale=half)
            cv2.scaleAdd(gx * gx, a, xx, xx)
            cv2.scaleAdd(gx * gy, a, xy, xy)
            cv2.scaleAdd(gy * gy, a, yy, yy)
            cv2.scaleAdd(gx * rest, b, bx, bx)
            cv2.scaleAdd(gy * rest, b, by, by)
    planes = np.stack([(plane * weights).ravel() for plane in (xx, xy, yy, bx, by)])
    sums = (planes @ level.monomials.T).astype(np.float64)
    return NormalEquations(*_collect(sums), total / max(len(pairs), 1))


def _collect(sums: Matrix) -> tuple[Matrix, Matrix]:
    """Collect [8, 8] and [8] from sums [5, monomials] of gx gx, gx gy, gy gy, gx r and gy r times each monomial."""
    column = {exponents: index for index, exponents in enumerate(MONOMIALS)}
    system, right = np.zeros((8, 8)), np.zeros(8)
    for row, first, second in ((0, _X_TERMS, _X_TERMS), (1, _X_TERMS, _Y_TERMS), (2, _Y_TERMS, _Y_TERMS)):
        for i, (sign_i, p_i, q_i) in first.items():
            for j, (sign_j, p_j, q_j) in second.items():
                value = sign_i * sign_j * sums[row, column[p_i + p_j, q_i + q_j]]
                system[i, j] += value
                if row == 1:
                    system[j, i] += value
    for row, terms in ((3, _X_TERMS), (4, _Y_TERMS)):
        for i, (sign, p, q) in terms.items():
            right[i] += sign * sums[row, column[p, q]]
    return system, right


def _directions(model: MotionModel) -> Matrix:
    """Return the directions [8, parameters] in which a model moves, in h00, h01, h02, h10, h11, h12, h20, h21."""
    unit = np.eye(8)
    shifts = [unit[2], unit[5]]
    if model == "translation":
        return np.array(shifts, np.float64).T
    if model == "similarity":
        return np.array([*shifts, unit[0] + unit[4], unit[3] - unit[1]], np.float64).T
    return unit[:, :6] if model == "affine" else unit


def _increment(step: Matrix) -> Matrix:
    """Return the matrix [3, 3] of a step [8]."""
    matrix = np.eye(3)
    matrix.flat[:8] += step
    return matrix
