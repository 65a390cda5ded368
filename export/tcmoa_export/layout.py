"""Where tokens live: window order, and the gathers that lead into and out of it.

A frame becomes one image (fit `pad`, `resize`) or several (`crops`). All images' tokens are rows of one matrix
and stay in WINDOW ORDER throughout, of which there are two. A quadrant is half a window; row and column count in it.

- Places first: (row, column, quadrant row, quadrant column, image, window row, window column). Batched products over
  windows and heads then read q, k and v with one stride per axis, so that TensorRT needs no transposition around
  attention; with windows first it writes the normalised tokens anew in this order: 7 % more bytes.
- Windows first: (image, window row, window column, quadrant row, quadrant column, row, column). In this form OpenVINO
  reads q and v, and writes attention's result, without transposing them: 8 % of a float32 frame of tiny, 13 % of int8.

A shift by half a window moves whole quadrants: one gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcmoa.frames import CROP, Fit, crop_starts, grid_of_frame, padded_size, resized_size
from tcmoa_runtime.contract import token_pixels

Index = NDArray[np.int64]
Order = Literal["places", "windows"]
ORDER_FOR: Final[dict[str, Order]] = {"gpu": "places", "cpu": "windows"}
"""Which order suits what the graph is to run on."""


@dataclass(frozen=True)
class Layout:
    """Geometry of one export: frame `height` x `width` pixels, how it is fitted, tokens per attention window.

    `order`: what comes first in the window order of the token matrix.
    """

    height: int
    width: int
    fit: Fit
    upsample: bool
    window: int
    order: Order = "places"

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
    def window_tokens(self) -> int:
        """Tokens of a window."""
        return self.window**2

    @property
    def block(self) -> int:
        """Tokens of a quadrant, the unit that a shift moves."""
        return (self.window // 2) ** 2

    @property
    def places_first(self) -> bool:
        """Whether the place inside a window comes before the window."""
        return self.order == "places"

    @property
    def groups(self) -> tuple[int, int]:
        """(a, b): the rows of n images' token matrix are [a, n, b]."""
        if self.places_first:
            return self.window_tokens, self.tokens // self.window_tokens
        return 1, self.tokens

    @cached_property
    def raster_of(self) -> Index:
        """Raster index (row * columns + column) of each token of ONE image in window order: [tokens]."""
        rows, cols = self.windows
        half = self.window // 2
        raster = np.arange(self.tokens).reshape(rows, 2, half, cols, 2, half)
        axes = (2, 5, 1, 4, 0, 3) if self.places_first else (0, 3, 1, 4, 2, 5)
        return raster.transpose(axes).reshape(-1)

    @cached_property
    def window_of(self) -> Index:
        """Place in ONE image's window order of each raster index: [tokens]."""
        return np.argsort(self.raster_of)

    @cached_property
    def window_index_in_attention(self) -> Index:
        """Raster index inside a window of each of its tokens in window order: [window**2]."""
        half = self.window // 2
        axes = (1, 3, 0, 2) if self.places_first else (0, 2, 1, 3)
        return np.arange(self.window_tokens).reshape(2, half, 2, half).transpose(axes).reshape(-1)

    def rows(self, images: int) -> Index:
        """Row in the token matrix of `images` images for each image and raster index: [images, tokens]."""
        _, together = self.groups
        group, rest = np.divmod(self.window_of, together)
        image = np.arange(images)[:, None]
        rows: Index = (group * images + image) * together + rest
        return rows

    def places(self, images: int) -> Index:
        """(image * tokens + raster index) of each row of the token matrix: the inverse of `rows`, flat."""
        return np.argsort(self.rows(images).reshape(-1))

    def shifted_blocks(self, direction: int, images: int) -> Index:
        """What to take along the axis (quadrant, image, window) so that each grid rolls by half a window.

        With windows first the axis is (image, window, quadrant). `direction` 1 brings each window's content from half a
        window further down and right (the shift), -1 undoes it. [4 * images * windows]
        """
        rows, cols = 2 * self.windows[0], 2 * self.windows[1]
        r, c = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
        per_window = self.windows[0] * self.windows[1]
        image = np.arange(images)[:, None, None]

        def place(row: Index, col: Index) -> Index:
            quadrant: Index = row % 2 * 2 + col % 2
            window: Index = row // 2 * self.windows[1] + col // 2
            if self.places_first:
                return (quadrant * images + image) * per_window + window
            return (image * per_window + window) * 4 + quadrant

        result = np.empty(images * rows * cols, np.int64)
        source = place((r + direction) % rows, (c + direction) % cols)
        result[place(r, c).reshape(-1)] = source.reshape(-1)
        return result

    def shifted_rows(self, direction: int, images: int) -> Index:
        """`shifted_blocks` for rows of the token matrix: [images * tokens]."""
        blocks, inside = self.shifted_blocks(direction, images), np.arange(self.block)
        if self.places_first:
            return (inside[:, None] * len(blocks) + blocks).reshape(-1)
        return (blocks[:, None] * self.block + inside).reshape(-1)

    def kept_rows(self, images: int) -> Index:
        """Rows of the token matrix whose tokens reach the frame, image by image in raster order.

        With `pad` the padding is left out here, so that neither the last MLP nor the tail computes it.
        """
        rows, cols = self.kept_grid
        return self.rows(images).reshape(images, *self.image_grid)[:, :rows, :cols].reshape(-1)

    @property
    def kept_grid(self) -> tuple[int, int]:
        """Tokens [rows, columns] of an image that reach the frame."""
        return self.grid if self.fit == "pad" else self.image_grid

    @cached_property
    def prompt_source(self) -> Index:
        """Token of the frame's prompt map (raster) for each token of each image, raster: [images * tokens].

        Padding repeats the map's edge; a crop's token takes the frame token that its centre lies in.
        """
        gh, gw = self.grid
        rows = np.arange(self.image_grid[0])
        cols = np.arange(self.image_grid[1])
        parts = []
        for top, left in self.starts:
            r = np.minimum((top + rows * self.token + self.token // 2) // self.token, gh - 1)
            c = np.minimum((left + cols * self.token + self.token // 2) // self.token, gw - 1)
            parts.append((r[:, None] * gw + c).reshape(-1))
        return np.concatenate(parts)

    @cached_property
    def prompt_target(self) -> Index:
        """Place among [images * tokens], raster, whose prompt stands for each token of the frame's map: [gh * gw].

        Where crops overlap, that of the one that is pasted on top.
        """
        gh, gw = self.grid
        if self.fit != "crops":
            return np.arange(self.tokens).reshape(self.image_grid)[:gh, :gw].reshape(-1)
        rows = np.minimum(np.arange(gh) * self.token + self.token // 2, self.height - 1)
        cols = np.minimum(np.arange(gw) * self.token + self.token // 2, self.width - 1)
        result = np.empty((gh, gw), np.int64)
        for image, (top, left) in enumerate(self.starts):
            in_r = np.flatnonzero((rows >= top) & (rows < top + CROP))
            in_c = np.flatnonzero((cols >= left) & (cols < left + CROP))
            local = ((rows[in_r] - top) // self.token)[:, None] * self.image_grid[1]
            local = local + (cols[in_c] - left) // self.token
            result[np.ix_(in_r, in_c)] = image * self.tokens + local
        return result.reshape(-1)
