"""Eq. 8 in the exported graph: the effect of alpha and beta on real pairs, and how far a region reaches."""

import numpy as np
import pytest

from micro_model import frames, scrambled
from onnx_pieces import open_graph, run_graph
from tcmoa import load_weights
from tcmoa_export.network import build_graph
from tcmoa_export.photographs import make_pair
from tcmoa_export.spec import make_spec
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.pairs import find_pairs

SIZE = (224, 224)
BETAS = (-0.3, -0.15, 0.0, 0.15, 0.3)


@pytest.fixture(scope="module")
def tiny():
    return load_weights("tiny")


def towards_x(fused, x, y):
    """Return where the result is between the sources, by mean distance: -1 at y, 1 at x."""
    to_x, to_y = (np.abs(fused.astype(float) - s).mean() for s in (x, y))
    return (to_y - to_x) / np.abs(x.astype(float) - y).mean()


def assert_beta_moves_monotonically(model, task, pairs):
    spec = make_spec(model, ExportOptions(task=task, size=SIZE))
    session = open_graph(build_graph(model, spec, "steer", "0"))
    ones = np.ones((1, *spec.layout.grid), np.float32)
    for x, y in pairs:
        inputs = {"x": x[None], "y": y[None], "prompt_scale": ones}
        positions = [
            towards_x(run_graph(session, **inputs, prompt_shift=np.float32(beta) * ones)["fused"][0], x, y)
            for beta in BETAS
        ]
        # A source itself cannot be passed: a region in focus in x only is x from some beta on.
        moves = (np.diff(positions) > 0) | (np.array(positions[:-1]) == 1) | (np.array(positions[1:]) == -1)
        assert np.all(moves), f"{task}: {positions}"
        assert positions[-1] - positions[0] > 0.05, f"{task}: {positions}"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_beta_moves_real_pairs_monotonically_between_y_and_x(tiny, task, val_pairs):
    pairs = []
    for found in find_pairs(val_pairs / task)[:3]:
        frames_ = [read_frame(path) for path in (found.x, found.y)]
        pairs.append([np.ascontiguousarray(f[-SIZE[0] :, -SIZE[1] :]) for f in frames_])
    pairs = [[f for f in pair if f.shape[:2] == SIZE] for pair in pairs]
    pairs = [pair for pair in pairs if len(pair) == 2]
    assert pairs
    assert_beta_moves_monotonically(tiny, task, pairs)


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_beta_moves_photographs_monotonically_between_y_and_x(tiny, task):
    pair = make_pair(task, "coffee", SIZE)
    assert_beta_moves_monotonically(tiny, task, [(pair.x, pair.y)])


def test_alpha_zero_makes_every_prompt_one_half():
    model = scrambled()
    spec = make_spec(model, ExportOptions(task="vif", size=(100, 130), with_prompt=True))
    zeros = np.zeros((1, *spec.layout.grid), np.float32)
    x, y = frames(100, 130), frames(100, 130, seed=1)
    proto = build_graph(model, spec, "half", "0")
    prompt = run_graph(proto, x=x, y=y, prompt_scale=zeros, prompt_shift=zeros)["prompt"]
    np.testing.assert_array_equal(prompt, np.full_like(prompt, 0.5))


def blocks_between(moas):
    """Return the backbone blocks between the first TC-MoA (after block 1) and the second (after block 5)."""
    return range(moas[0] + 1, moas[1] + 1)


def reach(region, window, blocks):
    """Return the tokens that a change at `region` [gh, gw] reaches: by the 3x3 convolution, then by whole windows.

    Odd blocks attend in windows that are shifted by half and wrap around, because there is no mask.
    """
    grown = region.copy()
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            grown |= np.pad(region, 1)[1 + dr : 1 + dr + region.shape[0], 1 + dc : 1 + dc + region.shape[1]]
    for i in blocks:
        half = window // 2 * (i % 2)
        rolled = np.roll(grown, (-half, -half), (0, 1))
        rows, cols = region.shape[0] // window, region.shape[1] // window
        hit = rolled.reshape(rows, window, cols, window).any((1, 3))
        rolled = hit.repeat(window, 0).repeat(window, 1)
        grown = np.roll(rolled, (half, half), (0, 1))
    return grown


def test_a_region_changes_only_tokens_that_windows_and_the_3x3_convolution_reach():
    model = scrambled()
    size = (5 * 112, 6 * 112)
    spec = make_spec(model, ExportOptions(task="vif", size=size, with_prompt=True))
    session = open_graph(build_graph(model, spec, "region", "0"))
    inputs = {"x": frames(*size), "y": frames(*size, seed=1)}
    ones = np.ones((1, *spec.layout.grid), np.float32)
    region = np.zeros(spec.layout.grid, bool)
    region[30:33, 40:42] = True
    plain = run_graph(session, **inputs, prompt_scale=ones, prompt_shift=0 * ones)["prompt"][0]
    painted = run_graph(
        session, **inputs, prompt_scale=ones, prompt_shift=np.float32(0.3) * region[None] * ones
    )["prompt"][0]
    changed = (plain != painted).any(1)  # [K, gh, gw]

    # Nothing before the first TC-MoA's control differs: its prompts change in the region only, by beta.
    np.testing.assert_array_equal(changed[0], region)
    np.testing.assert_allclose(painted[0, 0][region] - plain[0, 0][region], 0.3, atol=1e-6)
    np.testing.assert_allclose(painted[0, 1][region] - plain[0, 1][region], -0.3, atol=1e-6)

    within = reach(region, model.sizes.window, blocks_between(model.sizes.moa_positions(model.sizes.depth)))
    assert not within.all()  # otherwise the next line could not fail
    assert not changed[1][~within].any()
    assert changed[1][within].mean() > 0.9
