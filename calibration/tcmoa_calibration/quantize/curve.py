"""The trade-off as a picture: how much of the backbone is in 8 bits, and what that leaves of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from tcmoa_calibration.quantize.calibrate import Step
from tcmoa_calibration.quantize.judge import Budget
from tcmoa_runtime.images import Frame

_SIZE: Final = (420, 680)
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 60
_INK, _GRID, _LINE, _BOUND = (40, 40, 40), (225, 225, 225), (200, 90, 20), (40, 40, 200)


def draw_curve(steps: Sequence[Step], budget: Budget, chosen: int, title: str) -> Frame:
    """RGB [420, 680, 3]: PSNR in dB (up) over the share in 8 bits (right); `chosen`: groups in 8 bits of the point that
    was taken.
    """
    points = [(s.share, min(s.damage.psnr_db, 100.0), s.quantised_groups) for s in steps]
    values = [p[1] for p in points] + ([budget.min_psnr] if budget.min_psnr is not None else [])
    low, high = 5 * math.floor(min(values) / 5 - 0.2), 5 * math.ceil(max(values) / 5 + 0.2)
    height, width = _SIZE
    image: Frame = np.full((height, width, 3), 255, np.uint8)

    def place(share: float, decibels: float) -> tuple[int, int]:
        x = _LEFT + share * (width - _LEFT - _RIGHT)
        y = height - _BOTTOM - (decibels - low) / (high - low) * (height - _TOP - _BOTTOM)
        return round(x), round(y)

    def text(words: str, at: tuple[int, int], size: float = 0.45, ink: tuple[int, int, int] = _INK) -> None:
        cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)

    for decibels in range(low, high + 1, 5):
        cv2.line(image, place(0, decibels), place(1, decibels), _GRID, 1)
        text(f"{decibels} dB", (10, place(0, decibels)[1] + 5))
    for tenth in range(0, 11, 2):
        x, y = place(tenth / 10, low)
        cv2.line(image, (x, y), place(tenth / 10, high), _GRID, 1)
        text(f"{tenth * 10} %", (x - 15, y + 18))
    text("share of the backbone's multiplications in 8 bits", (width // 2 - 170, height - 15))
    text(title, (_LEFT, 25), 0.55)
    if budget.min_psnr is not None:
        cv2.line(image, place(0, budget.min_psnr), place(1, budget.min_psnr), _BOUND, 1)
        text(f"budget {budget.min_psnr:g} dB", (_LEFT + 6, place(0, budget.min_psnr)[1] - 6), ink=_BOUND)
    ordered = sorted(points)
    for one, other in pairwise(ordered):
        cv2.line(image, place(*one[:2]), place(*other[:2]), _LINE, 2, cv2.LINE_AA)
    for point in ordered:
        cv2.circle(image, place(*point[:2]), 4, _LINE, -1, cv2.LINE_AA)
        if point[2] == chosen:
            cv2.circle(image, place(*point[:2]), 9, _INK, 2, cv2.LINE_AA)
    return image
