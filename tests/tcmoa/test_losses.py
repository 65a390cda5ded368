"""Losses: what they are zero for, slow and obvious references, gradients on awkward images."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from tcmoa.fidelity import information_fidelity
from tcmoa.losses import (
    PUBLISHED,
    TERMS,
    WARMUP,
    chroma_loss,
    edge_loss,
    fidelity_loss,
    gradient_max_loss,
    luma,
    prompt_regularizer,
    seam_loss,
    sharper_patches,
    signed_gradients,
    ssim,
    ssim_loss,
    weighted_terms,
)
from tcmoa.mef_ssim import mef_ssim
from tcmoa_calibration import metrics

TASKS = ["vif", "mef", "mff"]


def random_image(*size, seed=0):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def flat(value):
    return torch.full((1, 3, 64, 64), value)


IDEAL = {"mef_ssim": 1e-3, "edges": 0.03, "fidelity": 2e-3}
"""How far from 0 a term may stand for a perfect result: rounding, floors under variances, and Qabf's sigmoids, which
end below 1."""


@pytest.mark.parametrize("name", TERMS)
def test_losses_of_a_result_equal_to_both_sources_are_zero(pair, name):
    x = pair[0]
    assert TERMS[name](x, x.clone(), x.clone()).item() == pytest.approx(0, abs=IDEAL.get(name, 1e-5))


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("size", [(112, 112), (32, 48)])
def test_losses_are_finite_and_differentiable(name, size, pair):
    x, y = (image[..., : size[0], : size[1]] for image in pair)
    fused = 0.4 * x + 0.4 * y + 0.1 * random_image(*size)
    fused[..., 24:, 24:] += 0.3  # a step, for the terms that look for one
    if size[1] > 56:
        fused[..., 56:] += 0.9
    fused.requires_grad_()
    term = TERMS[name](x, y, fused)
    assert term.isfinite()
    (gradient,) = torch.autograd.grad(term, fused)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0 or (name == "seams" and max(size) <= 56)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("start", ["equal", "black", "noise"])
def test_flat_sources_have_finite_losses_and_gradients(name, start):
    """0 / 0 of a formula must not reach the weights of a model: one such crop would end a run."""
    x, y = flat(0.5), flat(0.0)
    fused = {"equal": x, "black": y, "noise": random_image(64, 64)}[start].clone().requires_grad_()
    term = TERMS[name](x, y, fused)
    (gradient,) = torch.autograd.grad(term, fused)
    assert term.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("weights", [WARMUP, PUBLISHED])
def test_published_weights_name_terms_of_every_task(weights):
    assert list(weights) == TASKS
    assert all(name in TERMS and weight > 0 for terms in weights.values() for name, weight in terms.items())


def test_terms_are_multiplied_by_their_weights(pair):
    x, y = pair
    terms = weighted_terms({"ssim": 2.0, "pixel_max": 0.5}, x, y, x)
    assert list(terms) == ["ssim", "pixel_max"]
    assert terms["ssim"].item() == pytest.approx(2 * ssim_loss(x, y, x).item())
    assert terms["pixel_max"].item() == pytest.approx(0.5 * (torch.maximum(x, y) - x).abs().mean().item())


def eight_bits(image):
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def test_edge_loss_is_one_minus_qabf(pair):
    """Slow and obvious Qabf, but with repeated borders (the metric's are black, edges shared by all three images)."""
    x, y = (luma(image)[..., :24, :20] for image in pair)
    fused = torch.maximum(x, y)
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])

    def gradient(image, row, col):
        padded = np.pad(image[0, 0].numpy().astype(float) * 255, 1, mode="edge")[row : row + 3, col : col + 3]
        return (padded * sobel).sum(), (padded * sobel.T).sum()

    kept = whole = 0.0
    for row in range(24):
        for col in range(20):
            fx, fy = gradient(fused, row, col)
            for source in (x, y):
                sx, sy = gradient(source, row, col)
                of_source, of_fused = np.hypot(sx, sy), np.hypot(fx, fy)
                ratio = min(of_source, of_fused) / max(of_source, of_fused, 1e-9)
                turn = abs(np.arctan2(sy, sx) - np.arctan2(fy, fx)) % np.pi
                aligned = 1 - min(turn, np.pi - turn) * 2 / np.pi
                strength = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5)))
                kept += strength * 0.9879 / (1 + np.exp(-22 * (aligned - 0.8))) * of_source
                whole += of_source
    in_color = [image.expand(-1, 3, -1, -1) for image in (x, y, fused)]
    assert edge_loss(*in_color).item() == pytest.approx(1 - kept / whole, abs=2e-3)


def test_edge_loss_orders_results_as_the_metric_does(pair):
    x, y = pair
    results = [(x + y) / 2, torch.maximum(x, y), 0.3 * x + 0.7 * y, torch.full_like(x, 0.5)]
    by_loss = [-edge_loss(x, y, fused).item() for fused in results]
    by_metric = [metrics.qabf(eight_bits(x), eight_bits(y), eight_bits(fused)) for fused in results]
    assert np.argsort(by_loss).tolist() == np.argsort(by_metric).tolist()


def test_fidelity_is_one_for_the_source_more_with_contrast_and_less_with_blur_and_noise(pair):
    gray = luma(pair[0])
    louder, softer = 0.5 + 1.3 * (gray - 0.5), torch.nn.functional.avg_pool2d(gray, 5, 1, 2)
    noisy = gray + 0.05 * torch.randn(gray.shape, generator=torch.Generator().manual_seed(0))
    assert information_fidelity(gray, gray).item() == pytest.approx(1, abs=2e-3)
    assert information_fidelity(gray, louder).item() > 1.02
    assert information_fidelity(gray, softer).item() < information_fidelity(gray, noisy).item() < 0.9
    assert information_fidelity(gray, torch.zeros_like(gray)).item() < 0.01


def test_fidelity_orders_results_as_the_metric_does(pair):
    x, y = pair
    results = [x, y, (x + y) / 2, torch.maximum(x, y), 0.3 + 0.4 * x]
    by_loss = [-fidelity_loss(x, y, fused).item() for fused in results]
    by_metric = [metrics.vif(eight_bits(x), eight_bits(y), eight_bits(fused)) for fused in results]
    assert np.argsort(by_loss).tolist() == np.argsort(by_metric).tolist()


def test_fidelity_refuses_images_below_its_window():
    with pytest.raises(ValueError, match=r"images of 64x16; expected at least 17 pixels"):
        information_fidelity(torch.zeros(1, 1, 16, 64), torch.zeros(1, 1, 16, 64))


def test_seams_are_tone_steps_at_borders_of_windows_that_no_source_has():
    x = torch.linspace(0, 0.5, 224).expand(1, 3, 224, 224).clone()
    y = flat(0.3)[..., :1, :1].expand(1, 3, 224, 224)
    assert seam_loss(x, y, (x + y) / 2).item() == 0
    # Borders of both directions: 56, 112 and 168, 28 strips each; one of the six steps by 0.1.
    for place in ((..., slice(112, None)), (..., slice(56, None), slice(None))):
        stepped = y.clone()
        stepped[place] += 0.1
        assert seam_loss(y, y, stepped).item() == pytest.approx(0.1 / 6, rel=1e-4)
        assert seam_loss(y, stepped, stepped).item() == 0
    elsewhere = y.clone()
    elsewhere[..., 64:] += 0.1
    assert seam_loss(y, y, elsewhere).item() == 0


@pytest.mark.parametrize(
    ("window", "shift", "borders"),
    [
        (80, 40, (40, 80, 120, 160)),
        (56, 24, (24, 56, 80, 112, 136, 168)),  # 7 tokens: shifted by 3
        (28, 12, (12, 28, 40, 56, 68, 84, 96, 112, 124, 140, 152, 168, 180)),  # of 4 pixels
        (48, 0, (48, 96, 144)),
    ],
)
def test_seams_are_measured_at_the_windows_of_the_model(window, shift, borders):
    flat_image = torch.full((1, 3, 184, 184), 0.3)
    for place in range(4, 184, 4):
        stepped = flat_image.clone()
        stepped[..., place:] += 0.1
        terms = weighted_terms({"seams": 1.0}, flat_image, flat_image, stepped, window=window, shift=shift)
        expected = 0.1 / (2 * len(borders)) if place in borders else 0
        assert terms["seams"].item() == pytest.approx(expected, rel=1e-4), place


@pytest.mark.parametrize(("window", "shift"), [(14, 8), (112, 54)])
def test_borders_between_strips_are_refused(window, shift):
    with pytest.raises(
        ValueError, match=f"windows of {window} pixels, shifted by {shift}; expected multiples of 4"
    ):
        seam_loss(*[random_image(32, 48)] * 3, window, shift)


def test_an_image_without_borders_of_windows_has_no_seams():
    assert seam_loss(*[random_image(32, 48, seed=seed) for seed in range(3)]).item() == 0


def test_chroma_is_that_of_x_whatever_the_brightness(pair):
    x, y = pair
    assert chroma_loss(x, y, x + 0.2).item() == pytest.approx(0, abs=1e-4)
    assert chroma_loss(x, y, luma(x).expand(-1, 3, -1, -1)).item() > 0.01


@pytest.mark.parametrize("task", TASKS)
def test_steps_against_the_gradient_lower_the_loss(pair, task):
    x, y = pair
    fused = ((x + y) / 2 + 0.05).requires_grad_()
    weights = PUBLISHED[task]
    before = sum(weighted_terms(weights, x, y, fused).values())
    (gradient,) = torch.autograd.grad(before, fused)
    after = sum(weighted_terms(weights, x, y, fused - 1e-3 * gradient.sign()).values())
    assert after < before


def test_signed_gradients_of_ramps():
    """Per unit of slope: kernel rows (-0.2, 0, 0.2; -1, 0, 1; -0.2, 0, 0.2) give 2.8, times three channels."""
    column = torch.arange(8.0).expand(1, 3, 8, 8)
    inside = signed_gradients(column)[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside[0], torch.full((6, 6), 8.4))
    torch.testing.assert_close(inside[1], torch.zeros(6, 6))
    torch.testing.assert_close(signed_gradients(column.mT)[0, 1], signed_gradients(column)[0, 0].T)


def test_gradient_max_takes_the_stronger_source_per_pixel_and_direction():
    x, y, fused = (random_image(7, 9, seed=seed) for seed in range(3))
    kernel = np.array([[-0.2, 0, 0.2], [-1, 0, 1], [-0.2, 0, 0.2]])

    def gradient(image, row, col, weights):
        padded = np.pad(image[0].numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge")
        return (padded[:, row : row + 3, col : col + 3] * weights).sum()

    errors = []
    for weights in (kernel, kernel.T):
        for row in range(7):
            for col in range(9):
                of_x, of_y, got = (gradient(image, row, col, weights) for image in (x, y, fused))
                errors.append(abs(got - (of_x if abs(of_x) >= abs(of_y) else of_y)))
    assert gradient_max_loss(x, y, fused).item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_sharper_patches_are_whole_patches_of_the_source_with_the_steeper_peak():
    x, y = random_image(32, 48), random_image(32, 48, seed=1)
    y[..., :16, 16:32] = 0.5  # here x is sharper without doubt
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])

    def peak(image, top, left):
        gray = np.pad(luma(image)[0, 0].numpy(), 1, mode="edge")
        slopes = [
            abs((gray[r : r + 3, c : c + 3] * sobel).sum())
            + abs((gray[r : r + 3, c : c + 3] * sobel.T).sum())
            for r in range(top, top + 16)
            for c in range(left, left + 16)
        ]
        return max(slopes)

    got, taken = sharper_patches(x, y), set()
    for top in range(0, 32, 16):
        for left in range(0, 48, 16):
            area = (..., slice(top, top + 16), slice(left, left + 16))
            from_x = peak(x, top, left) >= peak(y, top, left)
            taken.add(from_x)
            assert torch.equal(got[area], (x if from_x else y)[area])
    assert taken == {True, False}


def test_ssim_of_an_image_and_itself_is_one(pair):
    assert ssim(pair[0], pair[0]).item() == pytest.approx(1, abs=1e-6)
    assert ssim_loss(pair[0], pair[0], pair[0]).item() == pytest.approx(0, abs=1e-6)


def test_ssim_is_scikit_images(pair):
    """Its mean leaves out the five pixels at each border where a window would not fit, as our function does."""
    x, y = pair
    for a, b in ((x, y), (x, 0.7 * x + 0.1), (x, (x + 0.05 * random_image(112, 112)).clamp(0, 1))):
        expected = structural_similarity(
            a[0].numpy(),
            b[0].numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
        )
        assert ssim(a, b).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_loss_is_the_mean_over_both_sources(pair):
    x, y = pair
    assert ssim_loss(x, y, x).item() == pytest.approx((1 - ssim(y, x).item()) / 2, abs=1e-6)


def test_mef_ssim_of_three_equal_images_is_one(pair):
    for image in map(luma, pair):
        assert mef_ssim(image, image, image).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_mef_ssim_of_three_equal_blanks_is_one_up_to_rounding(value):
    """A variance of 0 comes with the rounding of 127.5**2 in float32, which the small divisor there enlarges."""
    image = luma(flat(value))
    assert mef_ssim(image, image, image).item() == pytest.approx(1, abs=3e-2)


def test_mef_ssim_prefers_the_whole_scene_to_either_half_and_to_a_blank(pair):
    scene = luma(pair[0])
    over, under = scene.clone(), scene.clone()
    over[..., :56], under[..., 56:] = 1.0, 0.0  # each has lost one half
    score = mef_ssim(over, under, scene).item()
    assert 0.8 < score <= 1
    assert mef_ssim(over, under, over).item() < score - 0.05
    assert mef_ssim(over, under, under).item() < score - 0.05
    assert mef_ssim(over, under, torch.full_like(scene, 0.5)).item() < 0.5


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("other", ["equal", "black", "white", "noise"])
def test_mef_ssim_has_finite_gradients_on_flat_images(value, other):
    x = luma(flat(value))
    y = {"equal": x, "black": luma(flat(0.0)), "white": luma(flat(1.0)), "noise": luma(random_image(64, 64))}[
        other
    ]
    for start in (x, y, luma(random_image(64, 64, seed=1))):
        fused = start.clone().requires_grad_()
        score = mef_ssim(x, y, fused).sum()
        (gradient,) = torch.autograd.grad(score, fused)
        assert score.isfinite()
        assert gradient.isfinite().all()


def test_mef_ssim_scores_each_image_of_a_batch_alone(pair):
    x, y = (luma(image) for image in pair)
    both = mef_ssim(torch.cat((x, y)), torch.cat((x, x)), torch.cat((x, y)))
    assert both.shape == (2,)
    assert both[0].item() == pytest.approx(1, abs=2e-3)
    assert both[1].item() == pytest.approx(mef_ssim(y, x, y).item(), abs=1e-5)


def test_mef_ssim_refuses_images_below_its_window():
    with pytest.raises(ValueError, match=r"images of 64x10; expected at least 11 pixels"):
        mef_ssim(*[torch.zeros(1, 1, 10, 64)] * 3)


def test_the_regularizer_is_zero_for_prompts_that_add_up_to_one():
    prompts = [(p, 1 - p) for p in torch.tensor([[[0.25, 0.5]], [[0.75, 1.0]], [[0.0, 0.125]]])]
    assert prompt_regularizer(prompts, 2) == 0


def test_the_encoders_prompts_weigh_three_times_the_decoders():
    """Eq. 7: squared distance of the sum from 1, 0.75 encoder + 0.25 decoder."""
    good, bad = (
        (torch.tensor([[[0.5]]]), torch.tensor([[[0.5]]])),
        (torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])),
    )
    assert prompt_regularizer([bad, good, good], 2).item() == pytest.approx(0.75 * 4 / 2)
    assert prompt_regularizer([good, good, bad], 2).item() == pytest.approx(0.25 * 4)
