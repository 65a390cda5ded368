"""The trade-off as a picture: PSNR over the share of the backbone in 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from tcmoa_calibration.quantize.allocate import TradeOffPoint
from tcmoa_calibration.quantize.error import ErrorBudget
from tcmoa_runtime.typing import Frame

HEIGHT: Final = 420
WIDTH: Final = 680
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 60
_TEXT_COLOR, _GRID_COLOR, _LINE_COLOR, _BUDGET_COLOR = (
    (40, 40, 40),
    (225, 225, 225),
    (200, 90, 20),
    (40, 40, 200),
)
_MAX_DB: Final = 100.0
"""Where an infinite PSNR is drawn."""


def draw_curve(points: Sequence[TradeOffPoint], budget: ErrorBudget, num_quantized: int, title: str) -> Frame:
    """Draw PSNR in dB (up) over the share of the backbone's multiplications in 8 bits (right).

    Args:
        points: The measured points.
        budget: Its lowest PSNR is drawn as a line.
        num_quantized: Number of groups in 8 bits of the point that gets a ring.
        title: Text above the plot.

    Returns:
        RGB [420, 680, 3].
    """
    levels = [min(point.error.psnr_db, _MAX_DB) for point in points]
    shown = levels if budget.min_psnr is None else [*levels, budget.min_psnr]
    low, high = 5 * math.floor(min(shown) / 5 - 0.2), 5 * math.ceil(max(shown) / 5 + 0.2)
    image: Frame = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)

    def pixel(share: float, decibels: float) -> tuple[int, int]:
        x = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        y = HEIGHT - _BOTTOM - (decibels - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return round(x), round(y)

    def text(
        label: str, at: tuple[int, int], size: float = 0.45, color: tuple[int, int, int] = _TEXT_COLOR
    ) -> None:
        cv2.putText(image, label, at, cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)

    for decibels in range(low, high + 1, 5):
        cv2.line(image, pixel(0, decibels), pixel(1, decibels), _GRID_COLOR, 1)
        text(f"{decibels} dB", (10, pixel(0, decibels)[1] + 5))
    for percent in range(0, 101, 20):
        x, y = pixel(percent / 100, low)
        cv2.line(image, (x, y), pixel(percent / 100, high), _GRID_COLOR, 1)
        text(f"{percent} %", (x - 15, y + 18))
    text("share of the backbone's multiplications in 8 bits", (WIDTH // 2 - 170, HEIGHT - 15))
    text(title, (_LEFT, 25), 0.55)
    if budget.min_psnr is not None:
        left, right = pixel(0, budget.min_psnr), pixel(1, budget.min_psnr)
        cv2.line(image, left, right, _BUDGET_COLOR, 1)
        text(f"budget {budget.min_psnr:g} dB", (_LEFT + 6, left[1] - 6), color=_BUDGET_COLOR)
    ordered = sorted(zip(points, levels, strict=True), key=lambda item: (item[0].share, item[1]))
    pixels = [pixel(point.share, level) for point, level in ordered]
    for start, end in pairwise(pixels):
        cv2.line(image, start, end, _LINE_COLOR, 2, cv2.LINE_AA)
    for (point, _), center in zip(ordered, pixels, strict=True):
        cv2.circle(image, center, 4, _LINE_COLOR, -1, cv2.LINE_AA)
        if point.num_quantized == num_quantized:
            cv2.circle(image, center, 9, _TEXT_COLOR, 2, cv2.LINE_AA)
    return image
