"""Smoothing of prompts through alpha and beta: exact against Eq. 8, still where nothing moves, prompt where it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_pieces import ScriptedSource
from tcmoa_runtime import Fuser, InputError, Stream
from tcmoa_runtime.streams.smoothing import STRONGEST, PromptSmoother

GRID, SIZE = (6, 8), (48, 64)
STILL = np.full((*SIZE, 3), 90, np.uint8)


def smoother(seconds=0.2, **options):
    return PromptSmoother(GRID, SIZE, token=8, seconds=seconds, **options)


def eq8(prompt, scale, shift):
    """prompt [K, 2, gh, gw]."""
    sign = np.array([1, -1])[:, None, None]
    return (0.5 + scale * (prompt - 0.5) + sign * shift).astype(np.float32)


def prompts(rng, modules=3, agree=False):
    of_x = rng.uniform(0.2, 0.8, (1 if agree else modules, *GRID))
    both = np.stack([of_x, 1 - of_x], axis=1).astype(np.float32)
    return np.repeat(both, modules, axis=0) if agree else both


def run(seen, frames=None, *, scale=1.0, shift=0.0, seconds=0.2, step=0.04):
    """What comes out for a sequence of raw prompts."""
    made, out = smoother(seconds), []
    for i, raw in enumerate(seen):
        x = STILL if frames is None else frames[i]
        out.append(eq8(raw, *made.before(x, STILL, i * step, scale, shift)))
        made.after(out[-1])
    return np.array(out)


def expected(seen, *, scale=1.0, shift=0.0, seconds=0.2, step=0.04):
    weight, state, out = min(np.exp(-step / seconds), STRONGEST), None, []
    for raw in seen:
        state = raw if state is None else (1 - weight) * raw + weight * state
        out.append(eq8(state, scale, shift))
    return np.array(out)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1.7, -0.2), (np.linspace(0.5, 2, 48).reshape(GRID), 0.1)]
)
def test_where_all_modules_agree_it_is_exponential_smoothing_with_eq_8_on_top(scale, shift):
    rng = np.random.default_rng(0)
    seen = [prompts(rng, agree=True) for _ in range(20)]
    options = {"scale": scale, "shift": shift}
    np.testing.assert_allclose(run(seen, **options), expected(seen, **options), atol=2e-5)


def test_where_they_differ_their_mean_is_smoothed_exactly():
    rng = np.random.default_rng(1)
    seen = [prompts(rng) for _ in range(20)]
    np.testing.assert_allclose(run(seen).mean(axis=1), expected(seen).mean(axis=1), atol=2e-5)


@pytest.mark.parametrize("shift", [0.0, np.linspace(-0.5, 0.5, 48).reshape(GRID)])
def test_the_first_frame_is_as_it_is(shift):
    scale, got = smoother().before(STILL, STILL, 5.0, 1.3, shift)
    assert scale == 1.3
    assert got is shift


def test_no_time_constant_changes_nothing():
    rng = np.random.default_rng(2)
    seen = [prompts(rng) for _ in range(5)]
    np.testing.assert_array_equal(run(seen, seconds=0), [eq8(p, 1.0, 0.0) for p in seen])


def test_a_token_that_moves_is_not_held_back():
    rng = np.random.default_rng(3)
    seen = [prompts(rng) for _ in range(6)]
    frames = [STILL.copy() for _ in range(6)]
    for i, frame in enumerate(frames):
        frame[8:16, 8:16] = 90 + 60 * (i % 2)
    out = run(seen, frames)
    np.testing.assert_allclose(out[-1][..., 1, 1], seen[-1][..., 1, 1], atol=1e-5)
    assert np.abs(out[-1][..., 5, 7] - seen[-1][..., 5, 7]).max() > 0.02


def test_sensor_noise_is_no_motion():
    rng = np.random.default_rng(4)
    seen = [prompts(rng, agree=True) for _ in range(30)]
    frames = [np.clip(STILL + rng.normal(0, 6, STILL.shape), 0, 255).astype(np.uint8) for _ in seen]
    spread = run(seen, frames)[10:].std(axis=0).mean() / np.array(seen)[10:].std(axis=0).mean()
    assert spread < 0.45  # exponential smoothing with a weight of 0.82 leaves a third


@pytest.mark.parametrize("break_", ["gap", "back in time", "cut", "reset"])
def test_the_past_is_forgotten_where_it_says_nothing(break_):
    rng = np.random.default_rng(5)
    made = smoother()
    for i in range(5):
        made.after(eq8(prompts(rng), *made.before(STILL, STILL, i * 0.04, 1.0, 0.0)))
    time, x = 0.2, STILL
    if break_ == "gap":
        time = 9.0
    elif break_ == "back in time":
        time = 0.0
    elif break_ == "cut":
        x = rng.integers(0, 256, STILL.shape).astype(np.uint8)
    else:
        made.reset()
    assert made.before(x, STILL, time, 1.0, 0.0) == (1.0, 0.0)


def test_alpha_0_leaves_the_state_alone():
    rng = np.random.default_rng(6)
    made, seen = smoother(), [prompts(rng, agree=True) for _ in range(4)]
    for i, scale in enumerate((1.0, 0.0, 0.0, 1.0)):
        used = made.before(STILL, STILL, i * 0.04, scale, 0.0)
        out = eq8(seen[i], *used)
        made.after(out)
        assert np.isfinite(out).all()
    weight = np.exp(-0.2)
    np.testing.assert_allclose(out, (1 - weight) * seen[3] + weight * seen[0], atol=1e-5)


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_any_shape(grid, modules, grey, seed):
    rng = np.random.default_rng(seed)
    size = (grid[0] * 8 - rng.integers(0, 8), grid[1] * 8 - rng.integers(0, 8))
    made = PromptSmoother(grid, size, token=8, seconds=0.3)
    for i in range(3):
        shape = size if grey else (*size, 3)
        x = rng.integers(0, 256, shape).astype(np.uint8)
        scale, shift = made.before(x, x, i * 0.04, 1.0, 0.0)
        assert np.shape(scale) in ((), grid)
        assert np.shape(shift) in ((), grid)
        made.after(rng.uniform(0, 1, (modules, 2, *grid)).astype(np.float32))


def test_wrong_numbers_are_refused():
    with pytest.raises(InputError, match="smoothing is -1"):
        smoother(-1)
    with pytest.raises(InputError, match="motion is 0"):
        smoother(motion=0)


def test_a_real_graph_gives_steadier_prompts_of_a_noisy_scene(vif):
    rng = np.random.default_rng(7)
    scene = [rng.integers(60, 200, (100, 130, 3)) for _ in range(2)]
    images = [
        [np.clip(s + rng.normal(0, 4, s.shape), 0, 255).astype(np.uint8) for _ in range(12)] for s in scene
    ]

    def spread(smoothing):
        x, y = (ScriptedSource([40 * i for i in range(12)], images=i) for i in images)
        with Fuser.load(vif) as fuser, Stream(fuser, x, y, smoothing=smoothing) as stream:
            seen = [frame.prompt.mean(axis=0)[0] for frame in stream]
        return np.array(seen)[4:].std(axis=0).mean()

    assert spread(0.4) < 0.6 * spread(0.0)
