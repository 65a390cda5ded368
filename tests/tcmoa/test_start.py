"""The start of training is already a fusion, on real photographs."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from micro_model import MICRO
from tcmoa import PRESETS, Sizes, TCMoA
from tcmoa.start import (
    FUSIONS,
    dct_matrix,
    held_apart,
    kept_coefficients,
    start_as_fusion,
    third_by_third,
    upsampling_matrix,
)
from tcmoa.synthetic_pairs import exposure_pair, focus_pair, smooth_mask, synthetic_infrared


@pytest.fixture(scope="module", params=FUSIONS)
def model(request):
    started = TCMoA(PRESETS["tiny"]).eval()
    start_as_fusion(started, layout=FUSIONS[request.param])
    return started


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def fuse(model, x, y, task):
    with torch.no_grad():
        result = model(*(torch.from_numpy(s).permute(2, 0, 1)[None] for s in (x, y)), task)
    return result.image[0].permute(1, 2, 0).clamp(0, 1).numpy(), result.prompts


@pytest.fixture(params=["photo", "coffee"])
def scene(request):
    return request.getfixturevalue(request.param).astype(np.float32) / 255


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_equal_sources_are_reproduced(model, scene, task):
    assert psnr(fuse(model, scene, scene, task)[0], scene) > 35


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_the_result_is_nearer_to_both_sources_than_they_are_to_each_other(model, scene, task):
    x, y = {
        "vif": lambda: (scene, synthetic_infrared(scene)),
        "mef": lambda: exposure_pair(scene, 1.5),
        "mff": lambda: focus_pair(scene, smooth_mask(224, 224, np.random.default_rng(0)), 3.0),
    }[task]()
    fused, _ = fuse(model, x, y, task)
    assert min(psnr(fused, x), psnr(fused, y)) > psnr(x, y)


def test_the_sharper_source_dominates_and_its_detail_is_kept(model, scene):
    left = np.zeros((224, 224, 1), np.float32)
    left[:, :112] = 1
    far, near = focus_pair(scene, left, 2.0)  # far is sharp on the left
    fused, prompts = fuse(model, far, near, "mff")
    for prompt_x, prompt_y in prompts:
        assert prompt_x[..., :14].mean() > prompt_y[..., :14].mean() + 0.02
        assert prompt_x[..., 14:].mean() < prompt_y[..., 14:].mean() - 0.02

    def detail(image):
        return image - cv2.GaussianBlur(image, (0, 0), 2.0)

    kept = psnr(detail(fused), detail(scene))
    assert all(kept > psnr(detail(other), detail(scene)) for other in (far, near, (far + near) / 2))


@pytest.fixture(scope="module", params=[128, 384])
def narrow(request):
    width = {"embed_dim": request.param, "decoder_embed_dim": request.param}
    started = TCMoA(replace(PRESETS["nano"], **width)).eval()
    start_as_fusion(started)
    return started


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_every_width_keeps_all_of_luma_and_smooth_chroma(narrow, scene, task):
    scene = scene[:160, :160]  # whole windows of 80
    again = fuse(narrow, scene, scene, task)[0]
    assert psnr(again, scene) > 33
    assert psnr(again.mean(-1), scene.mean(-1)) > 45
    x, y = scene, synthetic_infrared(scene)
    fused, _ = fuse(narrow, x, y, task)
    assert min(psnr(fused, x), psnr(fused, y)) > psnr(x, y)


def test_the_coefficients_fill_three_tc_moas():
    for dim, chroma in ((256, 64), (128, 16)):
        kept = kept_coefficients(dim)
        assert len(kept) == len(set(kept)) == 3 * dim // 4
        assert [sum(color == c for color, _, _ in kept) for c in range(3)] == [64, chroma, chroma]
        assert all(u < 8 and v < 8 for _, u, v in kept)
        assert (1, 0, 0) in kept  # only the finest are omitted


@pytest.mark.parametrize("dim", [256, 384, 512])
def test_held_apart_leaves_room_for_a_second_luma_and_carriers(dim):
    layout = held_apart(dim)
    assert len(layout.kept) == len(set(layout.kept)) == layout.num_signals - 64
    assert layout.num_signals <= 3 * dim // 4
    first, others, last = layout.steps
    assert set(first.writes).isdisjoint(range(len(layout.kept)))
    assert len(first.writes) == len(first.reads) == 64
    assert (others.reads, last.reads) == (others.writes, last.writes)
    assert set(first.reads) | set(others.reads) == set(range(len(layout.kept)))
    assert all(len(step.reads) <= dim // 4 for step in layout.steps)  # the rank of a TC-MoA


@pytest.mark.parametrize("held", [False, True])
def test_the_luma_of_a_source_is_known_after_the_first_tc_moa_only_with_held_apart(scene, held):
    """Least squares show whether the luma of x can be recovered from its tokens after the first TC-MoA."""
    model = TCMoA(PRESETS["tiny"]).eval()
    start_as_fusion(model, layout=held_apart if held else third_by_third)
    y = scene[::-1, ::-1]  # of the same statistics, and unlike x at all places
    tokens = []
    model.encoder.moas[0].register_forward_hook(lambda _module, _inputs, output: tokens.append(output.x))
    fuse(model, scene, y.copy(), "vif")
    known = tokens[0].flatten(0, 2).double()
    own = torch.from_numpy(scene.mean(-1)).unfold(0, 8, 8).unfold(1, 8, 8).reshape(len(known), -1).double()
    inputs = torch.cat((known[:, :192], torch.ones(len(known), 1, dtype=torch.float64)), 1)
    train, test = slice(0, None, 2), slice(1, None, 2)
    solution = torch.linalg.lstsq(inputs[train], own[train]).solution
    error = (inputs[test] @ solution - own[test]).square().mean() / own[test].var()
    assert (error < 0.001) == held


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="C = 128; expected 256 or more"):
        start_as_fusion(TCMoA(PRESETS["nano"]), layout=held_apart)


def test_the_seed_fixes_all_but_the_position_biases():
    started = [TCMoA(PRESETS["tiny"]) for _ in range(3)]
    for model, seed in zip(started, (1, 1, 2), strict=True):
        start_as_fusion(model, seed)
    first, second, other = (model.state_dict() for model in started)
    assert {name.split(".")[1] for name in first if not torch.equal(first[name], second[name])} == {"biases"}
    assert not torch.equal(
        first["encoder.moas.0.prompts.routers.gate"], other["encoder.moas.0.prompts.routers.gate"]
    )


@pytest.mark.parametrize(
    ("sizes", "upsample"),
    [
        (MICRO, True),  # 64 channels hold no 192 pixels
        (PRESETS["tiny"], False),
        (Sizes(256, 6, 8, 288, 4, 8), True),
        (Sizes(256, 4, 8, 256, 4, 8), True),
        (Sizes(192, 6, 8, 192, 4, 8), True),
        (Sizes(320, 6, 8, 320, 4, 8), True),
        (Sizes(256, 6, 8, 256, 4, 8, patch_size=8), True),
    ],
)
def test_sizes_that_cannot_hold_it_are_refused(sizes, upsample):
    with pytest.raises(ValueError, match="expected upsampling, patches of 16"):
        start_as_fusion(TCMoA(sizes, upsample=upsample))


def test_dct_is_orthonormal_and_its_first_row_the_mean():
    matrix = dct_matrix(8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(matrix[0], torch.full((8,), 8**-0.5, dtype=torch.float64))


def test_upsampling_matrix_is_torchs_bilinear():
    line = torch.rand(1, 1, 24, dtype=torch.float64)
    doubled = torch.nn.functional.interpolate(line, scale_factor=2.0, mode="linear", align_corners=False)
    torch.testing.assert_close(upsampling_matrix() @ line[0, 0, 7:17], doubled[0, 0, 16:32])
