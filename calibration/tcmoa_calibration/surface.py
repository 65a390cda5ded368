"""A picture of an objective over alpha and beta: a heat map with axes, figures, the best point and the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import Frame

WIDTH: Final = 920
HEIGHT: Final = 700
LEFT: Final = 110
TOP: Final = 96
PLOT_WIDTH: Final = 640
PLOT_HEIGHT: Final = 500
"""Pixels: the plot's corner (LEFT, TOP) is the lowest alpha and the highest beta."""

BEST: Final = (255, 0, 110)
DEFAULT: Final = (255, 255, 255)
"""RGB that nothing else in the picture has."""

Point = tuple[float, float]
"""Alpha and beta."""

_GROUND: Final = (24, 24, 28)
_INK: Final = (225, 225, 220)
_DIM: Final = (140, 140, 140)
_MOST_FIGURES: Final = 9
"""Values per axis; with more the figures would cover each other."""
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_SMALL: Final = 0.42
_STRIP: Final = 20
_BRIGHT: Final = 110
_TICKS: Final = 5
_LEVELS: Final = 256


@dataclass(frozen=True)
class Surface:
    """What to draw."""

    means: Mapping[Point, float]
    """By (alpha, beta): all of the grid, and what else was tried."""
    alphas: Sequence[float]
    betas: Sequence[float]
    """The grid, ascending, from which the heat map is interpolated."""
    best: Point
    default: Point
    title: str
    note: str


def surface_picture(surface: Surface) -> Frame:
    """RGB [700, 920, 3]: alpha to the right, beta upwards, bright is high; dots are what was tried.

    The best point is a ring of colour BEST, the default a square of colour DEFAULT.
    """
    image = np.full((HEIGHT, WIDTH, 3), _GROUND, np.uint8)
    low, high = min(surface.means.values()), max(surface.means.values())
    axes = _Axes(_ends([a for a, _ in surface.means]), _ends([b for _, b in surface.means]))
    _paint(image, surface, axes, low, high)
    for point, mean in surface.means.items():
        cv2.circle(image, axes.pixel(point), 4, _colours(mean, low, high).tolist(), -1)
        cv2.circle(image, axes.pixel(point), 4, _GROUND, 1)
    if max(len(surface.alphas), len(surface.betas)) <= _MOST_FIGURES:
        _write_figures(image, surface, axes)
    _draw_axes(image, axes)
    _draw_bar(image, low, high)
    _text(image, surface.title[:76], (16, 30), 0.7)
    _text(image, surface.note[:110], (16, 54), colour=_DIM)
    _draw_marks(image, axes.pixel(surface.best), axes.pixel(surface.default))
    return image


@dataclass(frozen=True)
class _Axes:
    """What lies at the ends of the plot."""

    alphas: Point
    betas: Point

    def pixel(self, point: Point) -> tuple[int, int]:
        """(column, row) in the picture."""
        across = (point[0] - self.alphas[0]) / (self.alphas[1] - self.alphas[0])
        down = (self.betas[1] - point[1]) / (self.betas[1] - self.betas[0])
        return LEFT + round(across * (PLOT_WIDTH - 1)), TOP + round(down * (PLOT_HEIGHT - 1))


def _ends(values: list[float]) -> tuple[float, float]:
    """What an axis shows: all values, and something where they are one."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _colours(values: float | NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """RGB [..., 3] of values between low and high; those of a flat surface are all middling."""
    share = (np.asarray(values) - low) / (high - low) if low < high else np.full(np.shape(values), 0.5)
    levels = np.arange(_LEVELS, dtype=np.uint8)[:, None]
    table = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), np.uint8)[:, 0, ::-1]
    picked: NDArray[np.uint8] = table[
        np.clip(np.round(share * (_LEVELS - 1)), 0, _LEVELS - 1).astype(np.intp)
    ]
    return picked


def _paint(image: Frame, surface: Surface, axes: _Axes, low: float, high: float) -> None:
    """The heat map, bilinear between the points of the grid; a range of one value is a strip."""
    values = np.array([[surface.means[a, b] for a in surface.alphas] for b in surface.betas], np.float64)
    left, bottom = axes.pixel((surface.alphas[0], surface.betas[0]))
    right, top = axes.pixel((surface.alphas[-1], surface.betas[-1]))
    if left == right:
        left, right = left - _STRIP, right + _STRIP
    if top == bottom:
        top, bottom = top - _STRIP, bottom + _STRIP
    # Evenly spaced, as the grid is: in rows of the picture, beta falls.
    across = np.linspace(0, len(surface.alphas) - 1, right - left + 1)
    down = np.linspace(len(surface.betas) - 1, 0, bottom - top + 1)
    wide = np.stack([np.interp(across, np.arange(values.shape[1]), row) for row in values])
    full = np.stack([np.interp(down, np.arange(values.shape[0]), column) for column in wide.T], axis=1)
    image[top : bottom + 1, left : right + 1] = _colours(full, low, high)


def _write_figures(image: Frame, surface: Surface, axes: _Axes) -> None:
    """The mean beside each point of the grid, inside of the plot also at its edges."""
    for alpha in surface.alphas:
        for beta in surface.betas:
            x, y = axes.pixel((alpha, beta))
            words = f"{surface.means[alpha, beta]:.4g}"
            (wide, _), _ = cv2.getTextSize(words, _FONT, _SMALL, 1)
            left = min(max(x - wide // 2, LEFT + 3), LEFT + PLOT_WIDTH - wide - 3)
            at = left, y + 24 if y < TOP + 30 else y - 15
            behind = image[at[1] - 5, min(left + wide // 2, LEFT + PLOT_WIDTH - 1)]
            _text(image, words, at, _SMALL, _GROUND if behind.mean() > _BRIGHT else _INK)


def _draw_axes(image: Frame, axes: _Axes) -> None:
    bottom = TOP + PLOT_HEIGHT
    cv2.rectangle(image, (LEFT - 1, TOP - 1), (LEFT + PLOT_WIDTH, bottom), _DIM, 1)
    for part in np.linspace(0, 1, _TICKS).tolist():
        alpha, beta = (low + part * (high - low) for low, high in (axes.alphas, axes.betas))
        x, y = axes.pixel((alpha, beta))
        cv2.line(image, (x, bottom), (x, bottom + 6), _DIM, 1)
        cv2.line(image, (LEFT - 7, y), (LEFT - 1, y), _DIM, 1)
        _text(image, f"{alpha:.4g}", (x - 16, bottom + 24))
        _text(image, f"{beta:.4g}", (LEFT - 70, y + 5))
    _text(image, "alpha (prompt scale)", (LEFT + PLOT_WIDTH // 2 - 80, bottom + 50), colour=_DIM)
    _text(image, "beta (prompt shift): up to x, down to y", (16, TOP - 13), colour=_DIM)


def _draw_bar(image: Frame, low: float, high: float) -> None:
    """Which colour is which value."""
    left, right = LEFT + PLOT_WIDTH + 30, LEFT + PLOT_WIDTH + 54
    column = _colours(np.linspace(high, low, PLOT_HEIGHT), low, high)
    image[TOP : TOP + PLOT_HEIGHT, left:right] = column[:, None]
    for share in np.linspace(0, 1, _TICKS).tolist():
        y = TOP + round(share * (PLOT_HEIGHT - 1))
        _text(image, f"{high + share * (low - high):.4g}", (right + 8, y + 5))


def _draw_marks(image: Frame, best: tuple[int, int], default: tuple[int, int]) -> None:
    """Where they are, and below the plot what they mean."""
    x, y = default
    cv2.rectangle(image, (x - 9, y - 9), (x + 9, y + 9), DEFAULT, 2)
    cv2.circle(image, best, 13, BEST, 2)
    # A trifle darker, so that a program that looks for the marks finds those of the plot alone.
    ring, square = (tuple(max(level - 1, 0) for level in colour) for colour in (BEST, DEFAULT))
    cv2.rectangle(image, (LEFT, HEIGHT - 36), (LEFT + 16, HEIGHT - 20), square, 2)
    _text(image, "the bundle's default", (LEFT + 28, HEIGHT - 23))
    cv2.circle(image, (LEFT + 260, HEIGHT - 28), 9, ring, 2)
    _text(image, "the best of the search", (LEFT + 280, HEIGHT - 23))


def _text(
    image: Frame, words: str, at: tuple[int, int], size: float = 0.5, colour: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(image, words, at, _FONT, size, colour, 1, cv2.LINE_AA)
