"""Frames of any size through the model: padding, crops, resizing, luma, prompt maps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from micro_model import MICRO, MICRO_WEIGHTS, scrambled
from micro_model import frames as random_frames
from tcmoa import reference, window_fit
from tcmoa.reference import choose_color, fuse_frames
from tcmoa.window_fit import choose_fit, crop_starts, grid_of_frame, padded_size, resized_size
from tcmoa_runtime.contract import token_grid
from tcmoa_runtime.errors import InputError

lengths = st.integers(1, 5000)
windows = st.sampled_from([112, 224])


def sources(height, width, count=1):
    return tuple(torch.from_numpy(random_frames(height, width, count, seed)) for seed in (0, 1))


def plain(model, x, y, task="vif", **options):
    """The model on frames [B, H, W, 3] that are whole windows: clipped levels and prompts [B, K, 2, gh, gw]."""
    with torch.no_grad():
        result = model(*(s.permute(0, 3, 1, 2).float() / 255 for s in (x, y)), task, **options)
    prompt = torch.stack([torch.stack(both, 1) for both in result.prompts], 1)
    return (result.image * 255).clamp(0, 255).permute(0, 2, 3, 1), prompt


@given(lengths, lengths, windows)
def test_padding_goes_to_the_next_whole_windows(height, width, window):
    for length, padded in zip((height, width), padded_size(height, width, window), strict=True):
        assert padded % window == 0
        assert 0 <= padded - length < window


@given(lengths, lengths, windows)
def test_resizing_goes_to_the_nearest_whole_windows(height, width, window):
    for length, resized in zip((height, width), resized_size(height, width, window), strict=True):
        assert resized % window == 0
        assert resized >= window
        assert resized == window or abs(resized - length) <= window / 2


@given(st.integers(448, 5000))
def test_crops_cover_an_axis_without_gap_and_end_at_its_border(length):
    starts = crop_starts(length)
    assert starts[0] == 0
    assert starts[-1] == length - 448
    steps = np.diff(starts)
    assert ((steps > 0) & (steps <= 448)).all()
    assert (steps[:-1] == 448).all()


def test_an_axis_below_a_crop_is_refused():
    with pytest.raises(ValueError, match="447 pixels along an axis; expected at least 448"):
        crop_starts(447)


@given(lengths, lengths)
def test_crops_are_for_large_published_frames_only(height, width):
    assert choose_fit(height, width, as_published=False) == "pad"
    reference = "crops" if min(height, width) > 448 else "resize"
    assert choose_fit(height, width, as_published=True) == reference


@given(lengths, lengths, st.booleans())
def test_prompt_grids_cover_the_frame_or_the_resized_one(height, width, upsample):
    window = 112 if upsample else 224
    covering = token_grid(height, width, upsample)
    for fit in ("pad", "crops"):
        assert grid_of_frame(height, width, fit, upsample=upsample, window=window) == covering
    resized = grid_of_frame(height, width, "resize", upsample=upsample, window=window)
    assert resized == tuple(side * 14 // window for side in resized_size(height, width, window))


def test_a_frame_of_whole_windows_equals_the_models_output(micro):
    x, y = sources(112, 224, 2)
    shift = torch.linspace(-0.5, 0.5, 14 * 28).view(1, 14, 28)
    options = {"scale": 1.5, "shift": shift, "routers": ["mef", "vif", "mff"]}
    result, (fused, prompt) = fuse_frames(micro, x, y, "vif", **options), plain(micro, x, y, **options)
    torch.testing.assert_close(result.fused, fused, rtol=0, atol=1e-3)
    torch.testing.assert_close(result.prompt, prompt, rtol=0, atol=1e-6)


def test_padding_repeats_the_last_row_and_column(micro):
    x, y = sources(100, 130)
    scale = torch.rand(1, 13, 17) + 0.5
    result = fuse_frames(micro, x, y, "mff", scale=scale)
    padded = [
        torch.from_numpy(np.pad(s.numpy(), ((0, 0), (0, 12), (0, 94), (0, 0)), mode="edge")) for s in (x, y)
    ]
    padded_scale = torch.from_numpy(np.pad(scale.numpy(), ((0, 0), (0, 1), (0, 11)), mode="edge"))
    fused, prompt = plain(micro, *padded, "mff", scale=padded_scale)
    torch.testing.assert_close(result.fused, fused[:, :100, :130], rtol=0, atol=1e-3)
    torch.testing.assert_close(result.prompt, prompt[..., :13, :17], rtol=0, atol=1e-6)


def test_resizing_is_bilinear_in_both_directions(micro):
    def resized(frames, size):
        levels = frames.permute(0, 3, 1, 2).float()
        return F.interpolate(levels, size=size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)

    x, y = sources(150, 200)  # nearest whole windows: 112 x 224
    result = fuse_frames(micro, x, y, "mef", fit="resize")
    fused, prompt = plain(micro, resized(x, (112, 224)), resized(y, (112, 224)), "mef")
    assert fused.min() > 1  # nothing was clipped, so that clipping after resizing is the same
    assert fused.max() < 254
    torch.testing.assert_close(result.fused, resized(fused, (150, 200)), rtol=0, atol=1e-3)
    torch.testing.assert_close(result.prompt, prompt, rtol=0, atol=1e-6)


def test_crops_cover_the_frame_and_later_ones_overwrite_earlier_ones(micro, monkeypatch):
    for module in (window_fit, reference):
        monkeypatch.setattr(module, "CROP", 112)
    x, y = sources(150, 240)
    result = fuse_frames(micro, x, y, "vif", fit="crops")
    expected = torch.full((1, 150, 240, 3), torch.nan)
    prompt = torch.full((1, 3, 2, 19, 30), torch.nan)
    for top in (0, 38):
        for left in (0, 112, 128):
            area = (slice(None), slice(top, top + 112), slice(left, left + 112))
            fused, crop_prompt = plain(micro, x[area], y[area])
            expected[area] = fused
            for i in range(19):
                for j in range(30):  # a token belongs to the last crop that its center is in
                    row, col = min(8 * i + 4, 149) - top, min(8 * j + 4, 239) - left
                    if 0 <= row < 112 and 0 <= col < 112:
                        prompt[..., i, j] = crop_prompt[..., row // 8, col // 8]
    torch.testing.assert_close(result.fused, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(result.prompt, prompt, rtol=0, atol=1e-6)


def test_published_crops_are_448_pixels(micro):
    x, y = sources(450, 448)
    result = fuse_frames(micro, x, y, "vif", fit="crops")
    first, second = plain(micro, x[:, :448], y[:, :448])[0], plain(micro, x[:, 2:], y[:, 2:])[0]
    torch.testing.assert_close(result.fused, torch.cat((first[:, :2], second), 1), rtol=0, atol=1e-3)


def test_luma_mode_keeps_the_chroma_of_x(micro):
    x, y = sources(112, 112)
    weights = torch.tensor([0.299, 0.587, 0.114])

    def chroma(levels):
        return levels - (levels * weights).sum(-1, keepdim=True)

    result = fuse_frames(micro, x, y, "vif", color="luma").fused
    unclipped = ((result > 0) & (result < 255)).all(-1)
    assert unclipped.float().mean() > 0.8
    torch.testing.assert_close(chroma(result)[unclipped], chroma(x.float())[unclipped], rtol=0, atol=1e-3)

    gray = [(s.float() * weights).sum(-1, keepdim=True).expand(-1, -1, -1, 3) for s in (x, y)]
    brightness = (plain(micro, *gray)[0] * weights).sum(-1)
    torch.testing.assert_close(
        (result * weights).sum(-1)[unclipped], brightness[unclipped], rtol=0, atol=1e-2
    )


LUMA = torch.tensor([0.299, 0.587, 0.114])


def offsets_from_luma(levels):
    """Color of frames [..., 3] without their brightness."""
    return levels - (levels * LUMA).sum(-1, keepdim=True)


def not_clipped(levels):
    return ((levels > 0) & (levels < 255)).all(-1)


@pytest.mark.parametrize("task", ["mef", "mff"])
def test_luma_mode_mixes_the_color_of_both_sources_by_saturation(micro, task):
    x, y = sources(112, 112)
    result = fuse_frames(micro, x, y, task, color="luma").fused
    # |Cb| + |Cr| as BT.601 defines them.
    weights = []
    for levels in (x.numpy().astype(np.float64), y.numpy().astype(np.float64)):
        brightness = levels @ [0.299, 0.587, 0.114]
        cb, cr = (levels[..., 2] - brightness) * 0.564, (levels[..., 0] - brightness) * 0.713
        weights.append(torch.from_numpy(np.abs(cb) + np.abs(cr) + 1e-3)[..., None])
    mixed = sum(w * offsets_from_luma(s.double()) for w, s in zip(weights, (x, y), strict=True)) / sum(
        weights
    )
    inside = not_clipped(result)
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(offsets_from_luma(result.double())[inside], mixed[inside], rtol=0, atol=2e-3)


@pytest.mark.parametrize("task", ["mef", "mff"])
def test_the_color_of_exposures_and_focus_comes_from_the_source_that_has_some(micro, task):
    x, y = sources(112, 112)
    gray = (y.float() * LUMA).sum(-1, keepdim=True).round().to(torch.uint8).expand(-1, -1, -1, 3)
    for pair in ((x, gray), (gray, x)):
        result = fuse_frames(micro, *pair, task, color="luma").fused
        strong = not_clipped(result) & (offsets_from_luma(x.float()).abs().amax(-1) > 5)
        torch.testing.assert_close(
            offsets_from_luma(result)[strong], offsets_from_luma(x.float())[strong], rtol=0, atol=0.05
        )
    both = fuse_frames(micro, gray, gray, task, color="luma").fused
    assert offsets_from_luma(both).abs().max() < 1e-3


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_a_model_that_weighs_the_sources_fuses_luma_without_being_asked(task):
    model = scrambled(MICRO_WEIGHTS)
    x, y = sources(50, 90)
    result = fuse_frames(model, x, y, task)
    assert torch.equal(fuse_frames(model, x, y, task, color="luma").fused, result.fused)
    assert result.prompt.shape == (1, 3, 2, 4, 6)
    gray = [(s.float() * LUMA).sum(-1, keepdim=True) for s in (x, y)]
    padded = [np.pad(g.numpy(), ((0, 0), (0, 14), (0, 38), (0, 0)), mode="edge") for g in gray]
    fused, _ = plain(model, *(torch.from_numpy(g).expand(-1, -1, -1, 3) for g in padded), task)
    inside = not_clipped(result.fused)
    luma = (result.fused * LUMA).sum(-1)
    torch.testing.assert_close(luma[inside], fused[:, :50, :90, 0][inside], rtol=0, atol=2e-2)


def test_the_color_mode_of_a_model():
    assert [choose_color(MICRO, color) for color in (None, "rgb", "luma")] == ["rgb", "rgb", "luma"]
    assert [choose_color(MICRO_WEIGHTS, color) for color in (None, "luma")] == ["luma", "luma"]
    with pytest.raises(InputError) as caught:
        choose_color(MICRO_WEIGHTS, "rgb")
    assert str(caught.value) == (
        "color: 'rgb'; expected 'luma', as these weights fuse the luma. Leave color out."
    )


@pytest.mark.parametrize("fit", ["pad", "resize", "crops"])
def test_prompts_have_the_shape_of_the_grid_and_results_that_of_the_frame(micro, monkeypatch, fit):
    for module in (window_fit, reference):
        monkeypatch.setattr(module, "CROP", 112)
    x, y = sources(121, 135, 2)
    result = fuse_frames(micro, x, y, "vif", fit=fit)
    grid = grid_of_frame(121, 135, fit, upsample=True, window=112)
    assert result.prompt.shape == (2, 3, 2, *grid)
    assert result.fused.shape == (2, 121, 135, 3)
    assert result.fused.dtype == torch.float32
    assert 0 <= result.fused.min() <= result.fused.max() <= 255


@pytest.mark.parametrize("fit", ["pad", "resize", "crops"])
def test_sources_of_different_sizes_are_refused(micro, fit):
    with pytest.raises(
        ValueError, match=r"x is \(1, 112, 112, 3\) and y \(1, 50, 100, 3\); expected equal shapes"
    ):
        fuse_frames(micro, sources(112, 112)[0], sources(50, 100)[1], "vif", fit=fit)
