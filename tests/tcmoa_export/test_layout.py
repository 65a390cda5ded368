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
    window=st.sampled_from([2, 4, 14]),
)


def grid_of(layout, values):
    """Values in window order as a token grid."""
    rows, cols = layout.image_grid
    grid = np.empty(rows * cols, values.dtype)
    grid[layout.raster_of] = values
    return grid.reshape(rows, cols)


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_window_order_holds_each_token_once_window_by_window(layout):
    assert sorted(layout.raster_of) == list(range(layout.tokens))
    np.testing.assert_array_equal(layout.raster_of[layout.window_of], np.arange(layout.tokens))
    cols = layout.image_grid[1]
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


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_shifting_rolls_the_grid_by_half_a_window_and_back(layout):
    values = np.arange(layout.tokens)
    half = layout.window // 2
    shifted = values[layout.shifted_tokens(1)]
    expected = np.roll(grid_of(layout, values), (-half, -half), (0, 1))
    np.testing.assert_array_equal(grid_of(layout, shifted), expected)
    np.testing.assert_array_equal(shifted[layout.shifted_tokens(-1)], values)


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_kept_tokens_are_those_of_the_frame_in_raster_order(layout):
    rows, cols = layout.kept_grid
    expected = grid_of(layout, np.arange(layout.tokens))[:rows, :cols].reshape(-1)
    np.testing.assert_array_equal(layout.kept_tokens, expected)
    if layout.fit == "pad":
        assert (rows - 1) * layout.token < layout.height <= rows * layout.token
        assert (cols - 1) * layout.token < layout.width <= cols * layout.token
    else:
        assert (rows, cols) == layout.image_grid


@settings(max_examples=60, deadline=None)
@given(layout=layouts)
def test_prompt_maps_repeat_their_edge_into_the_padding_and_come_back(layout):
    gh, gw = layout.grid
    spread = grid_of(layout, np.arange(gh * gw)[layout.prompt_source])
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
        r, c = divmod(layout.raster_of[place], layout.image_grid[1])
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
        r, c = divmod(layout.raster_of[place], layout.image_grid[1])
        top, left = layout.starts[image]
        assert (r, c) == ((pixel[0] - top) // token, (pixel[1] - left) // token)
