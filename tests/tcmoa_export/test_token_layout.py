"""Window order and its gathers against slow, obvious loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmoa.window_fit import CROP
from tcmoa_export.token_layout import TokenLayout

layouts = st.builds(
    TokenLayout,
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    fit=st.sampled_from(["pad", "resize"]),
    upsample=st.booleans(),
    window=st.sampled_from([2, 4, 10, 14]),
    order=st.sampled_from(["position_major", "window_major"]),
)


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_window_order_contains_each_token_once_window_by_window(layout):
    assert sorted(layout.raster_of) == list(range(layout.tokens_per_image))
    np.testing.assert_array_equal(layout.raster_of[layout.row_of], np.arange(layout.tokens_per_image))
    cols = layout.image_grid[1]
    per_window = layout.raster_of.reshape(layout.window**2, -1).T
    if layout.order == "window_major":
        per_window = layout.raster_of.reshape(-1, layout.window**2)
    for i in {0, len(per_window) - 1}:
        row, col = divmod(i, layout.window_grid[1])
        inside = [
            (row * layout.window + r) * cols + col * layout.window + c
            for r in range(layout.window)
            for c in range(layout.window)
        ]
        assert sorted(per_window[i]) == inside
        np.testing.assert_array_equal(np.array(inside)[layout.raster_of_in_window], per_window[i])


def matrix_of(layout, grids):
    """Arrange values [images, rows, columns] as rows of the token matrix, by the definition of window order."""
    rows, cols = layout.window_grid
    half = layout.window // 2
    split = grids.reshape(len(grids), rows, 2, half, cols, 2, half)
    axes = (3, 6, 2, 5, 0, 1, 4) if layout.order == "position_major" else (0, 1, 4, 2, 5, 3, 6)
    return split.transpose(axes).reshape(-1)


@settings(max_examples=60, deadline=None)
@given(layout=layouts, images=st.integers(1, 3))
def test_matrix_rows_and_raster_positions_are_inverse(layout, images):
    values = np.arange(images * layout.tokens_per_image)
    matrix = matrix_of(layout, values.reshape(images, *layout.image_grid))
    np.testing.assert_array_equal(matrix[layout.matrix_rows(images).reshape(-1)], values)
    np.testing.assert_array_equal(values[layout.raster_positions(images)], matrix)
    if images == 1:
        np.testing.assert_array_equal(layout.raster_of, matrix)


@settings(max_examples=60, deadline=None)
@given(layout=layouts, images=st.integers(1, 3))
def test_shifting_rolls_each_grid_by_half_a_window_and_back(layout, images):
    grids = np.arange(images * layout.tokens_per_image).reshape(images, *layout.image_grid)
    half = layout.window // 2
    matrix = matrix_of(layout, grids)
    shifted = matrix[layout.shifted_rows(1, images)]
    np.testing.assert_array_equal(shifted, matrix_of(layout, np.roll(grids, (-half, -half), (1, 2))))
    np.testing.assert_array_equal(shifted[layout.shifted_rows(-1, images)], matrix)


@settings(max_examples=60, deadline=None)
@given(layout=layouts, images=st.integers(1, 3))
def test_kept_rows_are_the_frame_in_raster_order(layout, images):
    rows, cols = layout.kept_grid
    grids = np.arange(images * layout.tokens_per_image).reshape(images, *layout.image_grid)
    kept = matrix_of(layout, grids)[layout.kept_rows(images)]
    np.testing.assert_array_equal(kept, grids[:, :rows, :cols].reshape(-1))
    if layout.fit == "pad":
        assert (rows - 1) * layout.token_px < layout.height <= rows * layout.token_px
        assert (cols - 1) * layout.token_px < layout.width <= cols * layout.token_px
    else:
        assert (rows, cols) == layout.image_grid


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_prompt_maps_repeat_their_edge_into_the_padding_and_are_recovered(layout):
    gh, gw = layout.grid
    repeated = np.arange(gh * gw)[layout.map_index].reshape(layout.image_grid)
    rows, cols = (np.minimum(np.arange(n), g - 1) for n, g in zip(layout.image_grid, (gh, gw), strict=True))
    np.testing.assert_array_equal(repeated, rows[:, None] * gw + cols)
    np.testing.assert_array_equal(layout.map_index[layout.image_index], np.arange(gh * gw))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(CROP + 1, 1400), width=st.integers(CROP + 1, 1400), upsample=st.booleans())
def test_prompt_maps_of_crops_are_read_at_token_centers(height, width, upsample):
    layout = TokenLayout(height, width, "crops", upsample, 14)
    gh, gw = layout.grid
    token = layout.token_px
    rng = np.random.default_rng(height * 10_000 + width)
    source = layout.map_index.reshape(len(layout.origins), layout.tokens_per_image)
    for _ in range(20):
        image = rng.integers(len(layout.origins))
        place = rng.integers(layout.tokens_per_image)
        r, c = divmod(place, layout.image_grid[1])
        top, left = layout.origins[image]
        center = top + r * token + token // 2, left + c * token + token // 2
        assert source[image, place] == (center[0] // token) * gw + center[1] // token

        gr, gc = rng.integers(gh), rng.integers(gw)
        pixel = min(gr * token + token // 2, height - 1), min(gc * token + token // 2, width - 1)
        covering = [
            i
            for i, (t, left_) in enumerate(layout.origins)
            if t <= pixel[0] < t + CROP and left_ <= pixel[1] < left_ + CROP
        ]
        image, place = divmod(layout.image_index[gr * gw + gc], layout.tokens_per_image)
        assert image == covering[-1]  # the crop that is pasted on top
        r, c = divmod(place, layout.image_grid[1])
        top, left = layout.origins[image]
        assert (r, c) == ((pixel[0] - top) // token, (pixel[1] - left) // token)
