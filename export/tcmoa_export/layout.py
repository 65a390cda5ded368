"""Where tokens live: window order, and the gathers that lead into and out of it.

A frame becomes one image (fit `pad`, `resize`) or several (`crops`). An image's tokens stay in WINDOW ORDER
throughout: (window row, window column, quadrant row, quadrant column, row, column), quadrants being half a
window. A shift by half a window then moves whole quadrants: one gather of blocks of 49 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tcmoa.frames import CROP, Fit, crop_starts, grid_of_frame, padded_size, resized_size
from tcmoa_runtime.contract import token_pixels

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Geometry of one export: frame `height` x `width` pixels, how it is fitted, tokens per attention window."""

    height: int
    width: int
    fit: Fit
    upsample: bool
    window: int

    @property
    def token(self) -> int:
        """Frame pixels per token side."""
        return token_pixels(self.upsample)

    @property
    def image_size(self) -> tuple[int, int]:
        """Pixels [H, W] of each image that the blocks see, whole windows."""
        if self.fit == "crops":
            return CROP, CROP
        whole = padded_size if self.fit == "pad" else resized_size
        return whole(self.height, self.width, self.window * self.token)

    @property
    def starts(self) -> list[tuple[int, int]]:
        """Top left pixels of the images of a frame in pasting order."""
        if self.fit != "crops":
            return [(0, 0)]
        return [(top, left) for top in crop_starts(self.height) for left in crop_starts(self.width)]

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (gh, gw) of the prompt maps."""
        return grid_of_frame(
            self.height, self.width, self.fit, upsample=self.upsample, window=self.window * self.token
        )

    @property
    def image_grid(self) -> tuple[int, int]:
        """Tokens [rows, columns] of an image."""
        return self.image_size[0] // self.token, self.image_size[1] // self.token

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return self.image_grid[0] * self.image_grid[1]

    @property
    def windows(self) -> tuple[int, int]:
        """Attention windows [rows, columns] of an image."""
        return self.image_grid[0] // self.window, self.image_grid[1] // self.window

    @property
    def block(self) -> int:
        """Tokens of a quadrant, the unit that a shift moves."""
        return (self.window // 2) ** 2

    @property
    def axes(self) -> tuple[int, ...]:
        """Sizes of the six axes that window order is made of."""
        half = self.window // 2
        return (*self.windows, 2, 2, half, half)

    @cached_property
    def raster_of(self) -> Index:
        """Raster index (row * columns + column) of each token in window order: [tokens]."""
        rows, cols = self.windows
        half = self.window // 2
        raster = np.arange(self.tokens).reshape(rows, 2, half, cols, 2, half)
        return raster.transpose(0, 3, 1, 4, 2, 5).reshape(-1)

    @cached_property
    def window_of(self) -> Index:
        """Place in window order of each raster index: [tokens]."""
        return np.argsort(self.raster_of)

    @cached_property
    def window_index_in_attention(self) -> Index:
        """Raster index inside a window of each of its tokens in window order: [window**2]."""
        half = self.window // 2
        return np.arange(self.window**2).reshape(2, half, 2, half).transpose(0, 2, 1, 3).reshape(-1)

    def shifted_blocks(self, direction: int) -> Index:
        """Quadrant to take for each quadrant so that the grid rolls by half a window: [tokens / block].

        `direction` 1 brings each window's content from half a window further down and right (the shift),
        -1 undoes it.
        """
        rows, cols = 2 * self.windows[0], 2 * self.windows[1]
        r, c = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
        source = (r + direction) % rows, (c + direction) % cols

        def place(row: Index, col: Index) -> Index:
            return ((row // 2 * self.windows[1] + col // 2) * 2 + row % 2) * 2 + col % 2

        result = np.empty(rows * cols, np.int64)
        result[place(r, c).reshape(-1)] = place(source[0], source[1]).reshape(-1)
        return result

    def shifted_tokens(self, direction: int) -> Index:
        """`shifted_blocks` for single tokens: [tokens]."""
        blocks = self.shifted_blocks(direction)
        return (blocks[:, None] * self.block + np.arange(self.block)).reshape(-1)

    @cached_property
    def kept_tokens(self) -> Index:
        """Window-order places of an image's tokens that reach the frame, in raster order.

        With `pad` the padding is left out here, so that neither the last MLP nor the head computes it.
        """
        rows, cols = self.kept_grid
        raster = np.arange(self.tokens).reshape(self.image_grid)[:rows, :cols]
        return self.window_of[raster.reshape(-1)]

    @property
    def kept_grid(self) -> tuple[int, int]:
        """Tokens [rows, columns] of an image that reach the frame."""
        return self.grid if self.fit == "pad" else self.image_grid

    @cached_property
    def prompt_source(self) -> Index:
        """Token of the frame's prompt map (raster) for each token of each image: [images * tokens].

        Padding repeats the map's edge; a crop's token takes the frame token that its centre lies in.
        """
        gh, gw = self.grid
        rows = np.arange(self.image_grid[0])
        cols = np.arange(self.image_grid[1])
        parts = []
        for top, left in self.starts:
            r = np.minimum((top + rows * self.token + self.token // 2) // self.token, gh - 1)
            c = np.minimum((left + cols * self.token + self.token // 2) // self.token, gw - 1)
            parts.append((r[:, None] * gw + c).reshape(-1)[self.raster_of])
        return np.concatenate(parts)

    @cached_property
    def prompt_target(self) -> Index:
        """Place among [images * tokens] whose prompt stands for each token of the frame's map: [gh * gw].

        Where crops overlap, that of the one that is pasted on top.
        """
        gh, gw = self.grid
        if self.fit != "crops":
            raster = np.arange(self.tokens).reshape(self.image_grid)[:gh, :gw]
            return self.window_of[raster.reshape(-1)]
        rows = np.minimum(np.arange(gh) * self.token + self.token // 2, self.height - 1)
        cols = np.minimum(np.arange(gw) * self.token + self.token // 2, self.width - 1)
        result = np.empty((gh, gw), np.int64)
        for image, (top, left) in enumerate(self.starts):
            in_r = np.flatnonzero((rows >= top) & (rows < top + CROP))
            in_c = np.flatnonzero((cols >= left) & (cols < left + CROP))
            local = ((rows[in_r] - top) // self.token)[:, None] * self.image_grid[1]
            local = local + (cols[in_c] - left) // self.token
            result[np.ix_(in_r, in_c)] = image * self.tokens + self.window_of[local]
        return result.reshape(-1)
