"""The fused image from the sources' bands, against a step-by-step computation, and what holds for every image."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micro_model import MICRO_WEIGHTS, frames, scrambled
from tcmoa import TCMoA
from tcmoa.presets import PYRAMID_PIXELS
from tcmoa.source_weights import REGULARIZER, RULES, blend_sources, weight_of_x

TASKS = ("vif", "mef", "mff")
SIZE = (64, 96)


def images(seed, count=3, size=SIZE):
    """Return smooth lumas with noise, float64 [1, 1, H, W] in 0..1, each another image."""
    made = frames(*size, count, seed)[..., 0].astype(np.float64) / 255
    return [torch.from_numpy(image)[None, None] for image in made]


def halved(image):
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def doubled(image):
    """Enlarge bilinearly: each value lies at the center of its 2x2 pixels, the border is repeated."""
    for axis in (0, 1):
        image = np.moveaxis(image, axis, 0)
        around = np.concatenate((image[:1], image, image[-1:]))
        first, second = 0.25 * around[:-2] + 0.75 * image, 0.25 * around[2:] + 0.75 * image
        image = np.moveaxis(np.stack((first, second), 1).reshape(-1, image.shape[1]), 0, axis)
    return image


def smoothed(image, taps):
    kernel = [math.comb(taps - 1, k) for k in range(taps)]
    for axis in (0, 1):
        around = np.moveaxis(image, axis, 0)
        around = np.concatenate((*[around[:1]] * (taps // 2), around, *[around[-1:]] * (taps // 2)))
        moved = sum(k * around[i : i + image.shape[axis]] for i, k in enumerate(kernel)) / sum(kernel)
        image = np.moveaxis(moved, 0, axis)
    return image


def summed(values, taps):
    return smoothed(halved(values), taps)


def share_of_x(f, x, y, taps):
    """Least squares over a few pixels."""
    dividend, divisor = (summed(p, taps) for p in ((f - y) * (x - y), (x - y) ** 2))
    return (dividend + REGULARIZER / 2) / (divisor + REGULARIZER)


def fused_step_by_step(f, x, y, task):
    """Decompose all three images into bands, weigh each band of x and y, and add the bands."""
    rule = RULES[task]
    pyramids = []
    for image in (f, x, y):
        bands = []
        for _ in range(rule.levels):
            smaller = halved(image)
            bands.append(image - doubled(smaller))
            image = smaller
        pyramids.append((bands, image))
    (bands_f, low_f), (bands_x, low_x), (bands_y, low_y) = pyramids
    weights = [None]
    activities = []
    for k in range(1, rule.levels):
        energies = [summed(b[k] ** 2, rule.taps) + 255**-2 for b in (bands_x, bands_y)]
        logit = 4 * rule.gain * (share_of_x(bands_f[k], bands_x[k], bands_y[k], rule.taps) - 0.5)
        weights.append(doubled(1 / (1 + np.exp(-logit - rule.prior * np.log(energies[0] / energies[1])))))
    for bands, low in ((bands_x, low_x), (bands_y, low_y)):
        total = None
        for k in range(1, rule.levels):
            total = np.abs(bands[k]) if total is None else halved(total) + np.abs(bands[k])
        activities.append(np.abs(low - doubled(halved(low))) if total is None else halved(total))
    measures = [summed(activity, rule.low_taps) + 1 / 255 for activity in activities]
    if rule.low_measure == "exposedness":
        exposed = [np.exp(-((low - 0.5) ** 2) / (2 * 0.25**2)) for low in (low_x, low_y)]
        measures = [summed(values, rule.low_taps) + 1e-4 for values in exposed]
    logit = 4 * rule.low_gain * (share_of_x(low_f, low_x, low_y, min(rule.low_taps, 9)) - 0.5)
    low = doubled(1 / (1 + np.exp(-logit - rule.low_prior * np.log(measures[0] / measures[1]))))
    weights[0] = doubled(weights[1] if rule.levels > 1 else low)  # f has no finest band
    result = low * low_x + (1 - low) * low_y
    for w, band_x, band_y in zip(weights[::-1], bands_x[::-1], bands_y[::-1], strict=True):
        result = doubled(result) + w * band_x + (1 - w) * band_y
    return result


@pytest.mark.parametrize("task", TASKS)
def test_the_result_is_that_of_the_bands_one_by_one(task):
    f, x, y = images(3)
    expected = fused_step_by_step(*(image[0, 0].numpy() for image in (f, x, y)), task)
    got = blend_sources(f, x, y, task)
    assert got.shape == (1, 1, *SIZE)
    np.testing.assert_allclose(got[0, 0].numpy(), expected, rtol=0, atol=1e-12)
    assert np.abs(expected - x[0, 0].numpy()).mean() > 0.02
    assert np.abs(expected - y[0, 0].numpy()).mean() > 0.02


@given(st.integers(0, 10**6), st.sampled_from(TASKS), st.floats(1, 10))
def test_a_weight_is_a_share_and_that_of_y_is_the_rest(seed, task, gain):
    f, x, y = images(seed)
    rule = replace(RULES[task], gain=gain)
    weight = weight_of_x(torch.cat((f - y, x - y, y), 1), rule)
    assert weight.shape == x.shape
    assert 0 <= weight.min() <= weight.max() <= 1
    other = weight_of_x(torch.cat((f - x, y - x, x), 1), rule)
    torch.testing.assert_close(other, 1 - weight, rtol=0, atol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from(TASKS))
def test_exchanged_sources_give_the_same_result(seed, task):
    f, x, y = images(seed)
    torch.testing.assert_close(blend_sources(f, x, y, task), blend_sources(f, y, x, task), rtol=0, atol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from(TASKS))
def test_equal_sources_are_the_result_whatever_the_network_predicts(seed, task):
    f, x, _ = images(seed)
    torch.testing.assert_close(blend_sources(f, x, x, task), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(blend_sources(1000 * f - 500, x, x, task), x, rtol=0, atol=1e-12)


def test_equal_sources_weigh_one_half():
    f, x, _ = images(0)
    for rule in RULES.values():
        assert (weight_of_x(torch.cat((f - x, x - x, x), 1), rule) == 0.5).all()


@given(st.integers(0, 10**6), st.sampled_from(TASKS))
def test_a_prediction_of_one_source_gives_that_source(seed, task):
    _, x, y = images(seed)
    rule = RULES[task]
    # The least that the logistic curve leaves to the other source, in each band: its share of the difference.
    left = 1 / (1 + np.exp(2 * min(rule.gain, rule.low_gain)))
    bound = left * (rule.levels + 1) * 2 * float((x - y).abs().max()) + 2e-3
    for source in (x, y):
        assert (blend_sources(source, x, y, task) - source).abs().max() < bound


@given(st.integers(0, 10**6), st.sampled_from(TASKS))
def test_constant_sources_give_levels_between_them(seed, task):
    """Of constant images only the low band is not zero."""
    f, _, _ = images(seed)
    low, high = torch.full_like(f, 0.2), torch.full_like(f, 0.7)
    for x, y in ((low, high), (high, low)):
        fused = blend_sources(f, x, y, task)
        assert 0.2 - 1e-9 <= fused.min() <= fused.max() <= 0.7 + 1e-9


@pytest.mark.parametrize("task", TASKS)
def test_images_of_a_batch_are_fused_apart_and_gradients_are_finite(task):
    alone = [images(seed) for seed in (1, 2)]
    together = blend_sources(*(torch.cat(both) for both in zip(*alone, strict=True)), task)
    for got, sources in zip(together, alone, strict=True):
        torch.testing.assert_close(got[None], blend_sources(*sources, task), rtol=0, atol=1e-12)
    f, x, _ = images(5)
    f = f.requires_grad_()
    blend_sources(f, x, torch.zeros_like(x), task).square().sum().backward()
    assert f.grad.isfinite().all()
    assert f.grad.abs().max() > 0


def test_a_model_that_weighs_its_sources_predicts_at_the_frames_own_size():
    model = scrambled(MICRO_WEIGHTS)
    assert not model.upsample
    assert (model.window_pixels, model.shift_pixels, model.prompt_count) == (64, 32, 3)
    x, y = (torch.from_numpy(frames(64, 128, 1, s)).permute(0, 3, 1, 2).float() / 255 for s in (0, 1))
    with torch.no_grad():
        result = model(x, y, "vif")
        equal = model(x, x, "mef")
    assert result.image.shape == x.shape
    assert (result.image[:, :1] == result.image).all()  # gray
    assert result.prompts[0][0].shape == (1, 4, 8)
    luma = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(equal.image, luma.expand_as(x), rtol=0, atol=1e-5)
    with torch.no_grad():
        gray = model(luma.expand_as(x), y, "vif")
    torch.testing.assert_close(gray.decoded, result.decoded, rtol=0, atol=1e-4)
    torch.testing.assert_close(gray.image, result.image, rtol=0, atol=1e-3)


@pytest.mark.parametrize("changes", [{"window": 5}, {"window": 1}, {"window": 4, "patch_size": 4}], ids=str)
def test_windows_that_the_pyramid_does_not_divide_are_refused(changes):
    with pytest.raises(ValueError, match=r"windows of .* pixels; expected a multiple of 32 pixels"):
        replace(MICRO_WEIGHTS, **changes)
    TCMoA(replace(MICRO_WEIGHTS, output="image", **changes))


def test_the_pyramid_of_every_task_fits_a_window():
    """The sums of the low band are taken over 2x2 pixels."""
    assert max(2 ** (rule.levels + 1) for rule in RULES.values()) == PYRAMID_PIXELS
