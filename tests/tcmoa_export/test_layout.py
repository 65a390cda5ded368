"""Window order and its gathers against slow, obvious loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmoa.frames import CROP
from tcmoa_export.layout import Layout

layouts = st.builds(
    Layout,
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    fit=st.sampled_from(["pad", "resize"]),
    upsample=st.booleans(),
    window=st.sampled_from([2, 4, 10, 14]),
    order=st.sampled_from(["places", "windows"]),
)


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_window_order_holds_each_token_once_window_by_window(layout):
    assert sorted(layout.raster_of) == list(range(layout.tokens))
    np.testing.assert_array_equal(layout.raster_of[layout.window_of], np.arange(layout.tokens))
    cols = layout.image_grid[1]
    per_window = layout.raster_of.reshape(layout.window**2, -1).T
    if layout.order == "windows":
        per_window = layout.raster_of.reshape(-1, layout.window**2)
    for i in {0, len(per_window) - 1}:
        row, col = divmod(i, layout.windows[1])
        inside = [
            (row * layout.window + r) * cols + col * layout.window + c
            for r in range(layout.window)
            for c in range(layout.window)
        ]
        assert sorted(per_window[i]) == inside
        np.testing.assert_array_equal(np.array(inside)[layout.window_index_in_attention], per_window[i])


def matrix_of(layout, grids):
    """Values [images, rows, columns] as rows of the token matrix, by the definition of window order."""
    rows, cols = layout.windows
    half = layout.window // 2
    split = grids.reshape(len(grids), rows, 2, half, cols, 2, half)
    axes = (3, 6, 2, 5, 0, 1, 4) if layout.order == "places" else (0, 1, 4, 2, 5, 3, 6)
    return split.transpose(axes).reshape(-1)


@settings(max_examples=60, deadline=None)
@given(layout=layouts, images=st.integers(1, 3))
def test_rows_and_places_lead_into_the_matrix_and_back(layout, images):
    values = np.arange(images * layout.tokens)
    matrix = matrix_of(layout, values.reshape(images, *layout.image_grid))
    np.testing.assert_array_equal(matrix[layout.rows(images).reshape(-1)], values)
    np.testing.assert_array_equal(values[layout.places(images)], matrix)
    if images == 1:
        np.testing.assert_array_equal(layout.raster_of, matrix)


@settings(max_examples=60, deadline=None)
@given(layout=layouts, images=st.integers(1, 3))
def test_shifting_rolls_each_grid_by_half_a_window_and_back(layout, images):
    grids = np.arange(images * layout.tokens).reshape(images, *layout.image_grid)
    half = layout.window // 2
    matrix = matrix_of(layout, grids)
    shifted = matrix[layout.shifted_rows(1, images)]
    np.testing.assert_array_equal(shifted, matrix_of(layout, np.roll(grids, (-half, -half), (1, 2))))
    np.testing.assert_array_equal(shifted[layout.shifted_rows(-1, images)], matrix)


@settings(max_examples=60, deadline=None)
@given(layout=layouts, images=st.integers(1, 3))
def test_kept_rows_are_the_frame_in_raster_order(layout, images):
    rows, cols = layout.kept_grid
    grids = np.arange(images * layout.tokens).reshape(images, *layout.image_grid)
    kept = matrix_of(layout, grids)[layout.kept_rows(images)]
    np.testing.assert_array_equal(kept, grids[:, :rows, :cols].reshape(-1))
    if layout.fit == "pad":
        assert (rows - 1) * layout.token < layout.height <= rows * layout.token
        assert (cols - 1) * layout.token < layout.width <= cols * layout.token
    else:
        assert (rows, cols) == layout.image_grid


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_prompt_maps_repeat_their_edge_into_the_padding_and_come_back(layout):
    gh, gw = layout.grid
    spread = np.arange(gh * gw)[layout.prompt_source].reshape(layout.image_grid)
    rows, cols = (np.minimum(np.arange(n), g - 1) for n, g in zip(layout.image_grid, (gh, gw), strict=True))
    np.testing.assert_array_equal(spread, rows[:, None] * gw + cols)
    np.testing.assert_array_equal(layout.prompt_source[layout.prompt_target], np.arange(gh * gw))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(CROP + 1, 1400), width=st.integers(CROP + 1, 1400), upsample=st.booleans())
def test_crops_prompt_maps_are_taken_at_token_centres(height, width, upsample):
    layout = Layout(height, width, "crops", upsample, 14)
    gh, gw = layout.grid
    token = layout.token
    rng = np.random.default_rng(height * 10_000 + width)
    source = layout.prompt_source.reshape(len(layout.starts), layout.tokens)
    for _ in range(20):
        image = rng.integers(len(layout.starts))
        place = rng.integers(layout.tokens)
        r, c = divmod(place, layout.image_grid[1])
        top, left = layout.starts[image]
        centre = top + r * token + token // 2, left + c * token + token // 2
        assert source[image, place] == (centre[0] // token) * gw + centre[1] // token

        gr, gc = rng.integers(gh), rng.integers(gw)
        pixel = min(gr * token + token // 2, height - 1), min(gc * token + token // 2, width - 1)
        covering = [
            i
            for i, (t, left_) in enumerate(layout.starts)
            if t <= pixel[0] < t + CROP and left_ <= pixel[1] < left_ + CROP
        ]
        image, place = divmod(layout.prompt_target[gr * gw + gc], layout.tokens)
        assert image == covering[-1]  # the crop that is pasted on top
        r, c = divmod(place, layout.image_grid[1])
        top, left = layout.starts[image]
        assert (r, c) == ((pixel[0] - top) // token, (pixel[1] - left) // token)
