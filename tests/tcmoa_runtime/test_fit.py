"""Tiles: they cover every frame, their weights sum to one, and equal tiles join to the same frame."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime.fit import OVERLAP_PX, WEIGHT_SUM, plan_axis, plan_tiles

lengths = st.integers(1, 1500)
tiles = st.integers(32, 400)
tokens = st.sampled_from([8, 16])
windows = st.sampled_from([None, 16, 80, 112])


@given(lengths, tiles, tokens, windows)
def test_tiles_cover_an_axis_and_start_at_windows_or_tokens(length, tile, token, window):
    plan = plan_axis(length, tile, token, window)
    unit = token if window is None or 2 * window > tile else window
    assert plan.starts[0] == 0
    assert all(start % unit == 0 for start in plan.starts)
    assert length <= plan.padded < max(length, tile) + unit
    for before, after in pairwise(plan.starts):
        assert before < after <= before + tile


@given(lengths, tiles, tokens, windows)
def test_weights_sum_to_one_at_every_pixel(length, tile, token, window):
    plan = plan_axis(length, tile, token, window)
    total = np.zeros(plan.padded, np.int64)
    assert (plan.weights >= 0).all()
    for start, weights in zip(plan.starts, plan.weights, strict=True):
        total[start : start + tile] += weights
    assert (total == WEIGHT_SUM).all()


@given(st.integers(200, 1500), st.integers(2 * OVERLAP_PX + 32, 400), tokens)
def test_neighbors_overlap_enough_and_weights_are_smooth(length, tile, token):
    plan = plan_axis(length, tile, token)
    if len(plan.starts) > 1:
        assert plan.overlap >= OVERLAP_PX - token
        steps = np.abs(np.diff(plan.weights, axis=1))
        assert (
            steps.max() <= 2 * 1.5 * WEIGHT_SUM / plan.overlap + 2
        )  # the steepest slope of 3u^2 - 2u^3 is 1.5


@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 120), st.integers(32, 120), tokens)
def test_cut_and_blended_frames_are_the_same(height, width, tile_height, tile_width, token):
    rng = np.random.default_rng(height * 1000 + width)
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    plan = plan_tiles((height, width), (tile_height, tile_width), token)
    cut = list(plan.cut(frame))
    assert len(cut) == plan.count
    assert {tile.shape for tile in cut} == {(tile_height, tile_width, 3)}
    np.testing.assert_array_equal(plan.blend(cut), frame)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 120), st.integers(32, 120), tokens)
def test_cut_and_blended_prompts_are_the_same(height, width, tile_height, tile_width, token):
    rng = np.random.default_rng(height * 1000 + width)
    plan = plan_tiles((height, width), (tile_height, tile_width), token)
    prompt = rng.random(plan.grid, np.float32)
    cut = plan.cut_map(prompt)
    assert {tile.shape for tile in cut} == {plan.tile_grid}
    joined = plan.blend_prompts([np.broadcast_to(tile, (2, 2, *tile.shape)) for tile in cut])
    assert joined.shape == (2, 2, *plan.grid)
    np.testing.assert_allclose(joined, np.broadcast_to(prompt, joined.shape), rtol=1e-6)


@pytest.mark.parametrize(
    ("frame", "count", "padded"),
    [
        ((480, 640), 1, (480, 640)),
        ((100, 75), 1, (480, 640)),
        ((1200, 1920), 12, (1200, 1920)),
        ((481, 640), 2, (488, 640)),
    ],
)
def test_plans_of_common_frames(frame, count, padded):
    plan = plan_tiles(frame, (480, 640), 8)
    assert plan.count == count
    assert (plan.rows.padded, plan.columns.padded) == padded


def test_a_tile_fades_into_the_next():
    """A dark tile beside a bright one: no step larger than a few gray levels."""
    plan = plan_tiles((64, 160), (64, 128), 8, overlap=64)
    dark, bright = np.zeros((64, 128, 3), np.uint8), np.full((64, 128, 3), 255, np.uint8)
    joined = plan.blend([dark, bright])[0, :, 0].astype(int)
    assert joined[0] == 0
    assert joined[-1] == 255
    assert np.diff(joined).min() >= 0
    assert np.diff(joined).max() <= 8
