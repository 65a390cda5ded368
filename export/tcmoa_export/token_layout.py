"""Order of the tokens in the graph: window order, and the gathers into and out of it.

A frame becomes one image (fit `pad`, `resize`) or several (`crops`). The tokens of all images are the rows of one
matrix, in WINDOW ORDER throughout. A quadrant is a quarter of a window, half a window wide and high; row and column
count inside it. There are two window orders:

- Position-major: (row, column, quadrant row, quadrant column, image, window row, window column). Batched products over
  windows and heads then read q, k and v with one stride per axis, so that TensorRT needs no transposition around
  attention. In window-major order it writes the normalized tokens once more: 7 % more bytes.
- Window-major: (image, window row, window column, quadrant row, quadrant column, row, column). OpenVINO reads q and v,
  and writes the result of attention, without transposing them: 8 % of a float32 frame of tiny, 13 % of an int8 one.

A shift by half a window moves whole quadrants: one gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcmoa.window_fit import CROP, WindowFit, crop_starts, grid_of_frame, padded_size, resized_size
from tcmoa_runtime.contract import token_pixels
from tcmoa_runtime.typing import ExportTarget

Index = NDArray[np.int64]
WindowOrder = Literal["position_major", "window_major"]
ORDER_FOR: Final[dict[ExportTarget, WindowOrder]] = {"gpu": "position_major", "cpu": "window_major"}
"""Window order that suits a kind of processor."""


@dataclass(frozen=True)
class TokenLayout:
    """Geometry of one export: how frames are cut into tokens, and the order of the tokens.

    Attributes:
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.
        fit: How the frame is fitted to whole windows.
        upsample: Whether the model enlarges frames by 2.
        window: Side of an attention window in tokens.
        order: Order of the tokens.
        keeps_padding: Whether the tail computes the padding too, as filters beside it read it.
    """

    height: int
    width: int
    fit: WindowFit
    upsample: bool
    window: int
    order: WindowOrder = "position_major"
    keeps_padding: bool = False

    @property
    def token_px(self) -> int:
        """Side of a token in pixels of the frame."""
        return token_pixels(self.upsample)

    @property
    def image_size(self) -> tuple[int, int]:
        """Size [H, W] in pixels of each image that the blocks see; whole windows."""
        if self.fit == "crops":
            return CROP, CROP
        whole = padded_size if self.fit == "pad" else resized_size
        return whole(self.height, self.width, self.window * self.token_px)

    @property
    def origins(self) -> list[tuple[int, int]]:
        """Top left pixel of each image of a frame, in the order in which they are pasted."""
        if self.fit != "crops":
            return [(0, 0)]
        return [(top, left) for top in crop_starts(self.height) for left in crop_starts(self.width)]

    @property
    def grid(self) -> tuple[int, int]:
        """Size (gh, gw) of the prompt maps in tokens."""
        return grid_of_frame(
            self.height, self.width, self.fit, upsample=self.upsample, window=self.window * self.token_px
        )

    @property
    def image_grid(self) -> tuple[int, int]:
        """Size [rows, columns] of an image in tokens."""
        return self.image_size[0] // self.token_px, self.image_size[1] // self.token_px

    @property
    def tokens_per_image(self) -> int:
        """Number of tokens of an image."""
        return self.image_grid[0] * self.image_grid[1]

    @property
    def window_grid(self) -> tuple[int, int]:
        """Size [rows, columns] of an image in attention windows."""
        return self.image_grid[0] // self.window, self.image_grid[1] // self.window

    @property
    def tokens_per_window(self) -> int:
        """Number of tokens of a window."""
        return self.window**2

    @property
    def tokens_per_quadrant(self) -> int:
        """Number of tokens of a quadrant, the unit that a shift moves."""
        return (self.window // 2) ** 2

    @property
    def is_position_major(self) -> bool:
        """Whether the position inside a window comes before the window."""
        return self.order == "position_major"

    @property
    def axes_around_images(self) -> tuple[int, int]:
        """(outer, inner): the rows of the token matrix of n images are [outer, n, inner]."""
        if self.is_position_major:
            return self.tokens_per_window, self.tokens_per_image // self.tokens_per_window
        return 1, self.tokens_per_image

    @cached_property
    def raster_of(self) -> Index:
        """Raster index (row * columns + column) of each token of ONE image in window order: [tokens]."""
        rows, cols = self.window_grid
        half = self.window // 2
        raster = np.arange(self.tokens_per_image).reshape(rows, 2, half, cols, 2, half)
        axes = (2, 5, 1, 4, 0, 3) if self.is_position_major else (0, 3, 1, 4, 2, 5)
        return raster.transpose(axes).reshape(-1)

    @cached_property
    def row_of(self) -> Index:
        """Row in ONE image's token matrix of each raster index: [tokens]; the inverse of `raster_of`."""
        return np.argsort(self.raster_of)

    @cached_property
    def raster_of_in_window(self) -> Index:
        """Raster index inside a window of each of its tokens in window order: [window**2]."""
        half = self.window // 2
        axes = (1, 3, 0, 2) if self.is_position_major else (0, 2, 1, 3)
        return np.arange(self.tokens_per_window).reshape(2, half, 2, half).transpose(axes).reshape(-1)

    def matrix_rows(self, images: int) -> Index:
        """Return the row in the token matrix of `images` images of each image and raster index: [images, tokens]."""
        _, inner = self.axes_around_images
        group, rest = np.divmod(self.row_of, inner)
        image = np.arange(images)[:, None]
        rows: Index = (group * images + image) * inner + rest
        return rows

    def raster_positions(self, images: int) -> Index:
        """Return image * tokens + raster index of each row of the token matrix; the inverse of `matrix_rows`, flat."""
        return np.argsort(self.matrix_rows(images).reshape(-1))

    def shifted_quadrants(self, direction: int, images: int) -> Index:
        """Return the indices along the axis of quadrants that roll each token grid by half a window.

        Args:
            direction: 1 brings the content that is half a window further down and right into each window (the shift);
                -1 undoes it.
            images: Number of images in the token matrix.

        Returns:
            [4 * images * windows], along the axis (quadrant, image, window), or (image, window, quadrant) in
            window-major order.
        """
        rows, cols = 2 * self.window_grid[0], 2 * self.window_grid[1]
        r, c = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
        per_window = self.window_grid[0] * self.window_grid[1]
        image = np.arange(images)[:, None, None]

        def place(row: Index, col: Index) -> Index:
            quadrant: Index = row % 2 * 2 + col % 2
            window: Index = row // 2 * self.window_grid[1] + col // 2
            if self.is_position_major:
                return (quadrant * images + image) * per_window + window
            return (image * per_window + window) * 4 + quadrant

        result = np.empty(images * rows * cols, np.int64)
        source = place((r + direction) % rows, (c + direction) % cols)
        result[place(r, c).reshape(-1)] = source.reshape(-1)
        return result

    def shifted_rows(self, direction: int, images: int) -> Index:
        """Return `shifted_quadrants` for rows of the token matrix: [images * tokens]."""
        quadrants, inside = self.shifted_quadrants(direction, images), np.arange(self.tokens_per_quadrant)
        if self.is_position_major:
            return (inside[:, None] * len(quadrants) + quadrants).reshape(-1)
        return (quadrants[:, None] * self.tokens_per_quadrant + inside).reshape(-1)

    @property
    def kept_grid(self) -> tuple[int, int]:
        """Size [rows, columns] in tokens of the part of an image that reaches the frame."""
        return self.grid if self.fit == "pad" and not self.keeps_padding else self.image_grid

    def kept_rows(self, images: int) -> Index:
        """Return the rows of the token matrix whose tokens reach the frame, image by image in raster order.

        With fit `pad` this drops the padding, so that neither the last MLP nor the tail computes it.
        """
        rows, cols = self.kept_grid
        return self.matrix_rows(images).reshape(images, *self.image_grid)[:, :rows, :cols].reshape(-1)

    @cached_property
    def map_index(self) -> Index:
        """Raster index in the prompt map of each token of each image, images in raster order: [images * tokens].

        Padding repeats the map's edge; a token of a crop takes the token of the frame that contains its center.
        """
        gh, gw = self.grid
        rows = np.arange(self.image_grid[0])
        cols = np.arange(self.image_grid[1])
        parts = []
        for top, left in self.origins:
            r = np.minimum((top + rows * self.token_px + self.token_px // 2) // self.token_px, gh - 1)
            c = np.minimum((left + cols * self.token_px + self.token_px // 2) // self.token_px, gw - 1)
            parts.append((r[:, None] * gw + c).reshape(-1))
        return np.concatenate(parts)

    @cached_property
    def image_index(self) -> Index:
        """Index in [images * tokens] of the token whose prompt stands for each token of the prompt map: [gh * gw].

        Where crops overlap, it is the token of the crop that is pasted last.
        """
        gh, gw = self.grid
        if self.fit != "crops":
            return np.arange(self.tokens_per_image).reshape(self.image_grid)[:gh, :gw].reshape(-1)
        rows = np.minimum(np.arange(gh) * self.token_px + self.token_px // 2, self.height - 1)
        cols = np.minimum(np.arange(gw) * self.token_px + self.token_px // 2, self.width - 1)
        result = np.empty((gh, gw), np.int64)
        for image, (top, left) in enumerate(self.origins):
            in_r = np.flatnonzero((rows >= top) & (rows < top + CROP))
            in_c = np.flatnonzero((cols >= left) & (cols < left + CROP))
            local = ((rows[in_r] - top) // self.token_px)[:, None] * self.image_grid[1]
            local = local + (cols[in_c] - left) // self.token_px
            result[np.ix_(in_r, in_c)] = image * self.tokens_per_image + local
        return result.reshape(-1)
