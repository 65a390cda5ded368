"""The start of training is already a fusion, on real photographs."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from micro_model import MICRO, MICRO_WEIGHTS
from tcmoa import PRESETS, TCMoA
from tcmoa.config import TrainConfig
from tcmoa.initial_model import build_model
from tcmoa.model import IMAGE_MEAN, IMAGE_STD
from tcmoa.start import FUSIONS, dct_matrix, fuse_in_bands, hold_apart, luma_of_channels, start_as_fusion
from tcmoa.synthetic_pairs import exposure_pair, focus_pair, smooth_mask, synthetic_infrared

STARTS = [("nano", "fusion"), ("tiny", "fusion"), ("tiny", "fusion-held")]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SIDE = 160


@pytest.fixture(scope="module", params=STARTS, ids=lambda start: "+".join(start))
def model(request):
    preset, layout = request.param
    started = TCMoA(PRESETS[preset]).eval()
    start_as_fusion(started, layout=FUSIONS[layout])
    return started


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def predict(model, x, y, task):
    """Return the network's own image at half the resolution, and its prompts; x and y are lumas [160, 160]."""
    images = (torch.from_numpy(s)[None, None].expand(1, 3, -1, -1) for s in (x, y))
    with torch.no_grad():
        result = model(*images, task)
    decoded = result.decoded * torch.tensor(IMAGE_STD).view(3, 1, 1) + torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    image = (decoded * torch.from_numpy(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    return F.avg_pool2d(image, 2)[0, 0].numpy(), result.prompts


def half(image):
    return image.reshape(SIDE // 2, 2, SIDE // 2, 2).mean((1, 3))


@pytest.fixture(params=["photo", "coffee"])
def scene(request):
    """Luma of a photograph, in 0..1."""
    return request.getfixturevalue(request.param)[:SIDE, :SIDE].astype(np.float32) @ LUMA / 255


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_equal_sources_are_reproduced_at_half_resolution(model, scene, task):
    assert psnr(predict(model, scene, scene, task)[0], half(scene)) > 35


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_the_prediction_is_nearer_to_both_sources_than_they_are_to_each_other(model, scene, task):
    color = np.repeat(scene[..., None], 3, -1)
    x, y = {
        "vif": lambda: (color, synthetic_infrared(color)),
        "mef": lambda: exposure_pair(color, 1.5),
        "mff": lambda: focus_pair(color, smooth_mask(SIDE, SIDE, np.random.default_rng(0)), 3.0),
    }[task]()
    x, y = (np.ascontiguousarray(s @ LUMA if s.ndim == 3 else s, np.float32) for s in (x, y))
    fused, _ = predict(model, x, y, task)
    assert min(psnr(fused, half(x)), psnr(fused, half(y))) > psnr(half(x), half(y))


def test_the_source_with_more_detail_dominates(model, scene):
    flat = cv2.GaussianBlur(scene, (0, 0), 8.0)
    left = np.arange(SIDE) < SIDE // 2
    x, y = np.where(left, scene, flat), np.where(left, flat, scene)
    fused, prompts = predict(model, x, y, "mff")
    prompt_x, prompt_y = (sum(values) / len(prompts) for values in zip(*prompts, strict=True))
    assert prompt_x[..., :5].mean() > prompt_y[..., :5].mean() + 0.01
    assert prompt_x[..., 5:].mean() < prompt_y[..., 5:].mean() - 0.01

    def detail(image):
        return image - cv2.GaussianBlur(image, (0, 0), 2.0)

    kept = psnr(detail(fused), detail(half(scene)))
    assert all(kept > psnr(detail(half(other)), detail(half(scene))) for other in (x, y))


@pytest.mark.parametrize("layout", FUSIONS.values(), ids=FUSIONS)
@pytest.mark.parametrize("changes", [{}, {"depth": 8}, {"decoder_depth": 4}], ids=str)
def test_the_coefficients_are_shared_out_completely(layout, changes):
    sizes = replace(PRESETS["tiny"], **changes)
    plan = layout(sizes)
    assert (len(plan.encoder), len(plan.decoder)) == (sizes.encoder_moas, sizes.decoder_moas)
    steps = plan.encoder if layout is hold_apart else (*plan.encoder, *plan.decoder)
    assert [channel for step in steps for channel in step.reads] == list(range(64))
    assert all(0 < len(step.reads) == len(step.writes) <= sizes.embed_dim // 4 for step in steps)
    assert all(0 <= step.writes.start < step.writes.stop <= plan.num_signals for step in steps)
    if layout is hold_apart:
        assert [channel for step in steps for channel in step.writes] == list(range(64, 128))


@pytest.mark.parametrize("held", [False, True])
def test_the_source_is_known_after_the_encoder_only_with_hold_apart(scene, held):
    """Least squares show whether the coefficients of x can be recovered from its tokens."""
    model = TCMoA(replace(PRESETS["tiny"], window=4)).eval()
    start_as_fusion(model, layout=hold_apart if held else fuse_in_bands)
    rng = np.random.default_rng(0)
    tokens, blocks = [], []
    model.encoder.moas[-1].register_forward_hook(lambda _module, _inputs, output: tokens.append(output.x))
    for _ in range(4):
        x, y = (np.roll(scene, rng.integers(0, SIDE, 2), (0, 1))[:128, :128] for _ in range(2))
        images = [torch.from_numpy(s.copy())[None, None].expand(1, 3, -1, -1) for s in (x, y)]
        with torch.no_grad():
            model(*images, "vif")
        halved = torch.from_numpy(x.reshape(64, 2, 64, 2).mean((1, 3)))
        blocks.append(halved.unfold(0, 8, 8).unfold(1, 8, 8).reshape(64, 64))
    known = torch.cat([t.flatten(0, 2) for t in tokens]).double()
    own = torch.cat(blocks).double()
    inputs = torch.cat((known[:, :128], torch.ones(len(known), 1, dtype=torch.float64)), 1)
    train, test = slice(0, None, 2), slice(1, None, 2)
    if not held:
        inputs = inputs[:, [*range(64), 128]]
    solution = torch.linalg.lstsq(inputs[train], own[train]).solution
    error = (inputs[test] @ solution - own[test]).square().mean() / own[test].var()
    assert (error < 0.001) == held


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        (
            hold_apart,
            {"embed_dim": 128, "decoder_embed_dim": 128, "num_heads": 4, "decoder_num_heads": 4},
            160,
        ),
        (fuse_in_bands, {"tau": 4}, 128),
        (
            fuse_in_bands,
            {"embed_dim": 64, "decoder_embed_dim": 64, "num_heads": 2, "decoder_num_heads": 2},
            96,
        ),
    ],
    ids=["held apart", "few TC-MoAs", "narrow"],
)
def test_a_width_that_does_not_fit_a_layout_is_refused(layout, changes, message):
    sizes = replace(PRESETS["nano"], **changes)
    with pytest.raises(ValueError, match=f"C = {sizes.embed_dim} with . TC-MoAs; expected {message} or more"):
        start_as_fusion(TCMoA(sizes), layout=layout)


def test_the_seed_fixes_all_but_the_position_biases():
    started = [TCMoA(PRESETS["nano"]) for _ in range(3)]
    for model, seed in zip(started, (1, 1, 2), strict=True):
        start_as_fusion(model, seed)
    first, second, other = (model.state_dict() for model in started)
    assert {name.split(".")[1] for name in first if not torch.equal(first[name], second[name])} == {"biases"}
    assert not torch.equal(
        first["encoder.moas.0.prompts.routers.gate"], other["encoder.moas.0.prompts.routers.gate"]
    )


@pytest.mark.parametrize(("preset", "start"), STARTS)
def test_a_configuration_names_the_start(preset, start):
    built = build_model(TrainConfig(pairs={}, preset=preset, start=start, seed=3))
    torch.manual_seed(3)
    expected = TCMoA(PRESETS[preset])
    start_as_fusion(expected, 3, FUSIONS[start])
    assert all(torch.equal(p, built.state_dict()[name]) for name, p in expected.state_dict().items())


@pytest.mark.parametrize(
    "sizes",
    [
        MICRO,
        replace(PRESETS["nano"], output="image"),
        replace(PRESETS["nano"], patch_size=32),
        replace(PRESETS["nano"], decoder_embed_dim=192),
        replace(PRESETS["nano"], adaptation="frozen"),
        replace(MICRO_WEIGHTS, embed_dim=96, decoder_embed_dim=96, num_heads=3, decoder_num_heads=3, tau=8),
    ],
    ids=str,
)
def test_sizes_that_cannot_hold_it_are_refused(sizes):
    with pytest.raises(ValueError, match="expected the output 'source-weights', patches of 16"):
        start_as_fusion(TCMoA(sizes))


def test_dct_is_orthonormal_and_its_first_row_the_mean():
    matrix = dct_matrix(8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(matrix[0], torch.full((8,), 8**-0.5, dtype=torch.float64))


def test_an_equal_prediction_in_all_channels_has_the_luma_of_the_normalized_one():
    mean, std, luma = (torch.tensor(v, dtype=torch.float64) for v in (IMAGE_MEAN, IMAGE_STD, LUMA.tolist()))
    pixel = torch.tensor([0.7, 0.2, 0.4], dtype=torch.float64)
    value = (luma_of_channels() * (pixel - mean) / std).sum()
    assert ((value * std + mean) * luma).sum() == pytest.approx(float((pixel * luma).sum()), abs=1e-6)
