"""Losses: what they are zero for, slow and obvious references, gradients on awkward images."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from tcmoa.losses import (
    gradient_max_loss,
    luma,
    prompt_regulariser,
    sharper_patches,
    signed_gradients,
    ssim,
    ssim_loss,
    task_loss,
    warmup_loss,
)
from tcmoa.mef_ssim import mef_ssim

TASKS = ["vif", "mef", "mff"]


def random_image(*size, seed=0):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def flat(value):
    return torch.full((1, 3, 64, 64), value)


@pytest.mark.parametrize("loss", [warmup_loss, task_loss])
@pytest.mark.parametrize("task", TASKS)
def test_a_result_equal_to_both_sources_costs_nothing(pair, task, loss):
    x = pair[0]
    for name, term in loss(task, x, x.clone(), x.clone()).items():
        assert term.item() == pytest.approx(0, abs=1e-3 if task == "mef" else 1e-5), name


@pytest.mark.parametrize("loss", [warmup_loss, task_loss])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [(112, 112), (16, 48)])
def test_losses_are_finite_and_differentiable(task, loss, size, pair):
    x, y = (image[..., : size[0], : size[1]] for image in pair)
    fused = (0.4 * x + 0.4 * y + 0.1 * random_image(*size)).requires_grad_()
    for name, term in loss(task, x, y, fused).items():
        assert term.isfinite(), name
        (gradient,) = torch.autograd.grad(term, fused)
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("task", TASKS)
def test_steps_against_the_gradient_lower_the_loss(pair, task):
    x, y = pair
    fused = ((x + y) / 2 + 0.05).requires_grad_()
    before = sum(task_loss(task, x, y, fused).values())
    (gradient,) = torch.autograd.grad(before, fused)
    after = sum(task_loss(task, x, y, fused - 1e-3 * gradient.sign()).values())
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
        grey = np.pad(luma(image)[0, 0].numpy(), 1, mode="edge")
        slopes = [
            abs((grey[r : r + 3, c : c + 3] * sobel).sum())
            + abs((grey[r : r + 3, c : c + 3] * sobel.T).sum())
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
    """Its mean leaves out the five pixels at each border where a window would not fit, as ours does."""
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
    with pytest.raises(ValueError, match=r"images of \(10, 64\) are smaller than the window of 11"):
        mef_ssim(*[torch.zeros(1, 1, 10, 64)] * 3)


def test_prompts_that_add_up_to_one_cost_nothing():
    prompts = [(p, 1 - p) for p in torch.tensor([[[0.25, 0.5]], [[0.75, 1.0]], [[0.0, 0.125]]])]
    assert prompt_regulariser(prompts, 2) == 0


def test_the_encoders_prompts_weigh_three_times_the_decoders():
    """Eq. 7: squared distance of the sum from 1, 0.75 encoder + 0.25 decoder."""
    good, bad = (
        (torch.tensor([[[0.5]]]), torch.tensor([[[0.5]]])),
        (torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])),
    )
    assert prompt_regulariser([bad, good, good], 2).item() == pytest.approx(0.75 * 4 / 2)
    assert prompt_regulariser([good, good, bad], 2).item() == pytest.approx(0.25 * 4)
