"""The token matrix of a graph under construction, and the operations that depend on its layout."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.token_layout import Index, TokenLayout


@dataclass(frozen=True)
class TokenGraph:
    """A graph under construction, with the layout and size of its token matrix.

    The matrix is float32 [images * tokens, C], its rows in window order. Where it holds both sources, the images of x
    come before those of y.

    Attributes:
        graph: Where nodes are added.
        layout: Order of the rows.
        images: Number of images in the matrix.
    """

    graph: GraphBuilder
    layout: TokenLayout
    images: int

    @property
    def rows(self) -> int:
        """Number of rows of the matrix."""
        return self.images * self.layout.tokens_per_image

    @property
    def one_source(self) -> TokenGraph:
        """The same graph with the matrix of one of two sources."""
        return replace(self, images=self.images // 2)

    def split_images(self, tokens: str, channels: int) -> str:
        """Add a reshape of the matrix to [outer, images, inner, C]; see `TokenLayout.axes_around_images`."""
        outer, inner = self.layout.axes_around_images
        return self.graph.reshape(tokens, outer, self.images, inner, channels)

    def merge_images(self, tokens: str, channels: int) -> str:
        """Add a reshape back to the matrix."""
        return self.graph.reshape(tokens, self.rows, channels)

    def roll(self, tokens: str, channels: int, direction: int) -> str:
        """Add one gather of quadrants that rolls each image's tokens by half a window; -1 undoes 1."""
        layout = self.layout
        quadrants = self.rows // layout.tokens_per_quadrant
        shape, axis = (layout.tokens_per_quadrant, quadrants), 1
        if not layout.is_position_major:
            shape, axis = (quadrants, layout.tokens_per_quadrant), 0
        grouped = self.graph.reshape(tokens, *shape, channels)
        moved = self.graph.gather(grouped, layout.shifted_quadrants(direction, self.images), axis)
        return self.merge_images(moved, channels)

    def take_x(self, tokens: str, channels: int) -> str:
        """Take x's tokens [rows / 2, C] from the matrix of both sources."""
        grouped = self.graph.reshape(tokens, self.layout.axes_around_images[0], 2, -1)
        x = self.graph.split(grouped, (1, 1))[0]
        return self.one_source.merge_images(x, channels)

    @property
    def source_rows(self) -> Index:
        """Rows of each source's tokens in raster order: [2, rows / 2]."""
        return self.layout.matrix_rows(self.images).reshape(2, -1)

    def pair_sources(self, tokens: str, channels: int) -> str:
        """Add one gather that puts both sources' tokens side by side: [rows / 2, 2C] in raster order."""
        pairs = self.graph.gather(tokens, np.ascontiguousarray(self.source_rows.T), 0)
        return self.graph.reshape(pairs, self.one_source.rows, 2 * channels)
