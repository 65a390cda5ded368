"""A picture of an objective over alpha and beta: a heat map with axes, values, the best point and the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.typing import Frame

WIDTH: Final = 920
HEIGHT: Final = 700
LEFT: Final = 110
TOP: Final = 96
PLOT_WIDTH: Final = 640
PLOT_HEIGHT: Final = 500
"""Pixels of the picture and of the plot in it, whose top left corner is the lowest alpha and the highest beta."""

BEST_COLOR: Final = (255, 0, 110)
DEFAULT_COLOR: Final = (255, 255, 255)
"""RGB of the two marks, which nothing else in the picture has."""

Point = tuple[float, float]
"""(alpha, beta), or the two ends of an axis."""

_BACKGROUND: Final = (24, 24, 28)
_TEXT_COLOR: Final = (225, 225, 220)
_AXIS_COLOR: Final = (140, 140, 140)
_MAX_PRINTED_VALUES: Final = 9
"""Points per axis up to which values are printed; more would cover each other."""
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_VALUE_FONT_SCALE: Final = 0.42
_HALF_STRIP_PX: Final = 20
_BRIGHT: Final = 110
"""Mean of RGB above which text is dark."""
_NUM_TICKS: Final = 5
_NUM_COLORS: Final = 256
_MAX_TITLE, _MAX_NOTE = 76, 110
"""Characters."""


@dataclass(frozen=True)
class Surface:
    """An objective at points of alpha and beta.

    Attributes:
        means: The objective by (alpha, beta): all points of the grid, and others.
        alphas: Values of the grid, ascending and evenly spaced; the heat map is interpolated between them.
        betas: Values of the grid, ascending and evenly spaced.
        best: The point of the highest mean.
        default: The default prompt of the bundle.
        title: First line of text.
        note: Second line of text.
    """

    means: Mapping[Point, float]
    alphas: Sequence[float]
    betas: Sequence[float]
    best: Point
    default: Point
    title: str
    note: str


def draw_surface(surface: Surface) -> Frame:
    """Draw a heat map of alpha (right) and beta (up), brighter where the objective is higher.

    Returns:
        RGB [700, 920, 3]: a dot at each point, a ring of `BEST_COLOR` at the best and a square of `DEFAULT_COLOR` at
        the default.
    """
    image = np.full((HEIGHT, WIDTH, 3), _BACKGROUND, np.uint8)
    low, high = min(surface.means.values()), max(surface.means.values())
    axes = _Axes(_ends([a for a, _ in surface.means]), _ends([b for _, b in surface.means]))
    _draw_heat_map(image, surface, axes, low, high)
    for point, mean in surface.means.items():
        cv2.circle(image, axes.pixel(point), 4, _heat_colors(mean, low, high).tolist(), -1)
        cv2.circle(image, axes.pixel(point), 4, _BACKGROUND, 1)
    if max(len(surface.alphas), len(surface.betas)) <= _MAX_PRINTED_VALUES:
        _draw_values(image, surface, axes)
    _draw_axes(image, axes)
    _draw_color_bar(image, low, high)
    _text(image, surface.title[:_MAX_TITLE], (16, 30), 0.7)
    _text(image, surface.note[:_MAX_NOTE], (16, 54), color=_AXIS_COLOR)
    _draw_marks(image, axes.pixel(surface.best), axes.pixel(surface.default))
    return image


@dataclass(frozen=True)
class _Axes:
    """Ends of the two axes."""

    alphas: Point
    betas: Point

    def pixel(self, point: Point) -> tuple[int, int]:
        """Return (column, row) of a point in the picture."""
        across = (point[0] - self.alphas[0]) / (self.alphas[1] - self.alphas[0])
        down = (self.betas[1] - point[1]) / (self.betas[1] - self.betas[0])
        return LEFT + round(across * (PLOT_WIDTH - 1)), TOP + round(down * (PLOT_HEIGHT - 1))


def _ends(values: list[float]) -> tuple[float, float]:
    """Return the ends of an axis over all values, 1 apart where they are equal."""
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _heat_colors(values: float | NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Map values between low and high to RGB [..., 3]; the middle color where low equals high."""
    share = (np.asarray(values) - low) / (high - low) if low < high else np.full(np.shape(values), 0.5)
    levels = np.arange(_NUM_COLORS, dtype=np.uint8)[:, None]
    table = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), np.uint8)[:, 0, ::-1]
    picked: NDArray[np.uint8] = table[
        np.clip(np.round(share * (_NUM_COLORS - 1)), 0, _NUM_COLORS - 1).astype(np.intp)
    ]
    return picked


def _draw_heat_map(image: Frame, surface: Surface, axes: _Axes, low: float, high: float) -> None:
    """Draw the heat map, bilinear between the points of the grid; an axis of one value gives a strip."""
    values = np.array([[surface.means[a, b] for a in surface.alphas] for b in surface.betas], np.float64)
    left, bottom = axes.pixel((surface.alphas[0], surface.betas[0]))
    right, top = axes.pixel((surface.alphas[-1], surface.betas[-1]))
    if left == right:
        left, right = left - _HALF_STRIP_PX, right + _HALF_STRIP_PX
    if top == bottom:
        top, bottom = top - _HALF_STRIP_PX, bottom + _HALF_STRIP_PX
    # Beta falls from row to row of the picture.
    across = np.linspace(0, len(surface.alphas) - 1, right - left + 1)
    down = np.linspace(len(surface.betas) - 1, 0, bottom - top + 1)
    rows = np.stack([np.interp(across, np.arange(values.shape[1]), row) for row in values])
    full = np.stack([np.interp(down, np.arange(values.shape[0]), column) for column in rows.T], axis=1)
    image[top : bottom + 1, left : right + 1] = _heat_colors(full, low, high)


def _draw_values(image: Frame, surface: Surface, axes: _Axes) -> None:
    """Print the mean beside each point of the grid, inside the plot."""
    for alpha in surface.alphas:
        for beta in surface.betas:
            x, y = axes.pixel((alpha, beta))
            label = f"{surface.means[alpha, beta]:.4g}"
            (width, _), _ = cv2.getTextSize(label, _FONT, _VALUE_FONT_SCALE, 1)
            left = min(max(x - width // 2, LEFT + 3), LEFT + PLOT_WIDTH - width - 3)
            at = left, y + 24 if y < TOP + 30 else y - 15
            behind = image[at[1] - 5, min(left + width // 2, LEFT + PLOT_WIDTH - 1)]
            _text(
                image, label, at, _VALUE_FONT_SCALE, _BACKGROUND if behind.mean() > _BRIGHT else _TEXT_COLOR
            )


def _draw_axes(image: Frame, axes: _Axes) -> None:
    bottom = TOP + PLOT_HEIGHT
    cv2.rectangle(image, (LEFT - 1, TOP - 1), (LEFT + PLOT_WIDTH, bottom), _AXIS_COLOR, 1)
    for part in np.linspace(0, 1, _NUM_TICKS).tolist():
        alpha, beta = (low + part * (high - low) for low, high in (axes.alphas, axes.betas))
        x, y = axes.pixel((alpha, beta))
        cv2.line(image, (x, bottom), (x, bottom + 6), _AXIS_COLOR, 1)
        cv2.line(image, (LEFT - 7, y), (LEFT - 1, y), _AXIS_COLOR, 1)
        _text(image, f"{alpha:.4g}", (x - 16, bottom + 24))
        _text(image, f"{beta:.4g}", (LEFT - 70, y + 5))
    _text(image, "alpha (prompt scale)", (LEFT + PLOT_WIDTH // 2 - 80, bottom + 50), color=_AXIS_COLOR)
    _text(image, "beta (prompt shift): up to x, down to y", (16, TOP - 13), color=_AXIS_COLOR)


def _draw_color_bar(image: Frame, low: float, high: float) -> None:
    """Draw the color bar."""
    left, right = LEFT + PLOT_WIDTH + 30, LEFT + PLOT_WIDTH + 54
    column = _heat_colors(np.linspace(high, low, PLOT_HEIGHT), low, high)
    image[TOP : TOP + PLOT_HEIGHT, left:right] = column[:, None]
    for share in np.linspace(0, 1, _NUM_TICKS).tolist():
        y = TOP + round(share * (PLOT_HEIGHT - 1))
        _text(image, f"{high + share * (low - high):.4g}", (right + 8, y + 5))


def _draw_marks(image: Frame, best: tuple[int, int], default: tuple[int, int]) -> None:
    """Draw the two marks, and their legend below the plot."""
    x, y = default
    cv2.rectangle(image, (x - 9, y - 9), (x + 9, y + 9), DEFAULT_COLOR, 2)
    cv2.circle(image, best, 13, BEST_COLOR, 2)
    # The legend is one level darker: tests find the marks in the plot by their exact color.
    ring, square = (tuple(max(level - 1, 0) for level in color) for color in (BEST_COLOR, DEFAULT_COLOR))
    cv2.rectangle(image, (LEFT, HEIGHT - 36), (LEFT + 16, HEIGHT - 20), square, 2)
    _text(image, "the bundle's default", (LEFT + 28, HEIGHT - 23))
    cv2.circle(image, (LEFT + 260, HEIGHT - 28), 9, ring, 2)
    _text(image, "the best of the search", (LEFT + 280, HEIGHT - 23))


def _text(
    image: Frame,
    label: str,
    at: tuple[int, int],
    size: float = 0.5,
    color: tuple[int, int, int] = _TEXT_COLOR,
) -> None:
    cv2.putText(image, label, at, _FONT, size, color, 1, cv2.LINE_AA)
