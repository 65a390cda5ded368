"""Each fold against the unfolded modules, in float64 where the algebra is exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tcmoa.model import IMAGE_MEAN, IMAGE_STD, positions_on_grid
from tcmoa_export import folds

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def random_norm(dim, eps=1e-6):
    norm = nn.LayerNorm(dim, eps=eps)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias, 0, 0.3)
    return norm


def normalized(x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def test_the_affine_of_a_norm_is_folded_into_the_next_linear_layer():
    torch.manual_seed(0)
    norm, linear, x = random_norm(32), nn.Linear(32, 20), torch.randn(7, 32)
    folded = folds.linear_after_norm(norm, linear)
    got = normalized(x).numpy() @ folded.weight + folded.bias
    np.testing.assert_allclose(got, linear(norm(x)).detach(), **CLOSE)


@settings(max_examples=50, deadline=None)
@given(
    dim=st.integers(2, 80),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    constant=st.floats(0.1, 5) | st.floats(-5, -0.1),
)
def test_a_weight_carries_a_bias_exactly(dim, outputs, seed, constant):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, dim, generator=generator, dtype=torch.float64)
    bias = torch.randn(outputs, generator=generator, dtype=torch.float64)
    n = torch.randn(5, dim, generator=generator, dtype=torch.float64)
    n = n - n.mean(1, keepdim=True)
    offset = constant * (0.1 + torch.rand(dim, generator=generator, dtype=torch.float64))
    carried = folds.carry_bias(weight, bias, offset)
    assert torch.allclose((n + offset) @ carried.T, n @ weight.T + bias, rtol=0, atol=1e-10 * dim)


@settings(max_examples=50, deadline=None)
@given(dim=st.integers(2, 80), seed=st.integers(0, 10**6))
def test_centering_a_weight_changes_no_product_with_a_normalized_token(dim, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, dim, generator=generator, dtype=torch.float64)
    gamma = torch.randn(dim, generator=generator, dtype=torch.float64)
    n = torch.randn(5, dim, generator=generator, dtype=torch.float64)
    n = n - n.mean(1, keepdim=True)
    assert torch.allclose(n @ folds.center_weight(weight, gamma).T, n @ weight.T, rtol=0, atol=1e-10)


def test_centering_reduces_the_weights_of_channels_with_small_gamma():
    gamma = torch.tensor([40.0, 40.0, 0.25, 0.25], dtype=torch.float64)
    centered = folds.center_weight(torch.tensor([[1.0, 2.0, 7.0, 7.0]], dtype=torch.float64), gamma)
    assert centered[0, 2:].abs().max() < 0.01
    torch.testing.assert_close(
        centered[0, :2], torch.tensor([-6.0, -5.0], dtype=torch.float64), rtol=0, atol=0.01
    )


def test_qkv_includes_the_norm_the_biases_and_the_scale_of_the_logits(micro):
    block = micro.encoder.blocks[0]
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(1))
    expected = block.attn.qkv(block.norm1(x)).detach().clone()
    expected[:, :64] *= block.attn.scale
    weight, offset = folds.fold_qkv(block.norm1, block.attn)
    got = (normalized(x).numpy() + offset) @ weight
    np.testing.assert_allclose(got, expected, **CLOSE)


def test_the_offset_is_small_where_gamma_is_large_and_larger_for_larger_biases():
    norm = torch.nn.LayerNorm(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([8.0, 4.0, 1.0, 1.0]))
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small, large = (
        folds.choose_offset(norm, weight, torch.full((6,), b, dtype=torch.float64)) for b in (0.01, 9.0)
    )
    for offset in (small, large):
        torch.testing.assert_close(offset[1:] / offset[0], torch.tensor([2.0, 8.0, 8.0], dtype=torch.float64))
    assert large.square().mean().sqrt() > small.square().mean().sqrt()


def test_the_offset_is_the_one_with_the_smallest_terms(micro):
    """Against the sum written out: squares of the factors, to which their rounding errors are proportional."""
    block = micro.encoder.blocks[1]
    weight, bias = folds.fold_norm(block.norm1, block.attn.qkv.weight, block.attn.qkv.bias)
    with torch.no_grad():
        chosen = folds.choose_offset(block.norm1, weight, bias)
        sizes = chosen / chosen.square().mean().sqrt()

        def terms(offset):
            carried = folds.carry_bias(weight, bias, offset)
            return ((sizes.square() + offset.square()) * carried.square()).sum()

        best = min(folds.OFFSET_SCALES, key=lambda scale: terms(scale * sizes))
    torch.testing.assert_close(chosen, best * sizes)


def test_position_bias_follows_the_order_of_the_window_tokens(micro):
    table = micro.encoder.biases[0]
    order = np.random.default_rng(0).permutation(196)
    folded = folds.position_bias(table, order)
    expected = table().detach().numpy()
    assert folded.shape == (1, 2, 196, 196)
    for i, j in ((0, 1), (5, 100), (195, 3)):
        np.testing.assert_array_equal(folded[0, :, i, j], expected[:, order[i], order[j]])


@pytest.mark.parametrize("as_published", [False, True])
def test_positions_and_patch_bias_are_one_constant(micro, as_published):
    grid, bias = (14, 28), torch.randn(64, dtype=torch.float64)
    order = np.random.default_rng(0).permutation(14 * 28)
    folded = folds.fold_positions(micro.pos_embed, bias, grid, order, as_published=as_published)
    expected = positions_on_grid(micro.pos_embed, grid, as_published=as_published).flatten(0, 2) + bias
    np.testing.assert_allclose(folded, expected.detach()[order], rtol=0, atol=1e-6)


def test_equal_positions_become_a_single_row():
    bias = torch.randn(64, dtype=torch.float64)
    table = torch.full((1, 197, 64), 0.25)
    folded = folds.fold_positions(table, bias, (14, 28), np.arange(14 * 28), as_published=False)
    np.testing.assert_allclose(folded, (bias + 0.25)[None], rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 4), cols=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_bilinear_upsampling_and_patch_embedding_are_one_10x10_convolution_of_stride_8(rows, cols, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 8 * rows, 8 * cols, generator=generator, dtype=torch.float64)
    kernel = torch.randn(5, 3, 16, 16, generator=generator, dtype=torch.float64)
    big = F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
    expected = F.conv2d(big, kernel, stride=16)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    folded = folds.upsampled_kernel(kernel)
    assert folded.shape == (5, 3, 10, 10)
    assert torch.allclose(F.conv2d(padded, folded, stride=8), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("upsample", [True, False])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("color", ["rgb", "luma"])
def test_the_head_is_one_convolution_on_0_to_255(micro, upsample, order, color):
    side = 8 if upsample else 16
    image = torch.randint(
        0, 256, (1, 3, 2 * side, 3 * side), generator=torch.Generator().manual_seed(2)
    ).float()
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    visible = image
    if color == "luma":
        visible = (
            (image * torch.tensor((0.299, 0.587, 0.114)).view(3, 1, 1))
            .sum(1, keepdim=True)
            .expand(-1, 3, -1, -1)
        )
    normal = (visible / 255 - mean) / std
    if upsample:
        normal = F.interpolate(normal, scale_factor=2.0, mode="bilinear", align_corners=False)
    expected = micro.patch_embed.proj(normal)

    conv = micro.patch_embed.proj
    kernel, bias = folds.fold_head(conv, upsample=upsample, channel_order=order, color=color)
    frame = image.flip(1) if order == "bgr" else image
    if upsample:
        frame = F.pad(frame, (1, 1, 1, 1), mode="replicate")
    got = F.conv2d(frame, torch.from_numpy(kernel), stride=side) + bias.float().view(-1, 1, 1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("upsample", [True, False])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("color", ["rgb", "luma"])
def test_the_tail_computes_only_the_kept_pixels(micro, upsample, order, color):
    tokens = torch.randn(6, 64, generator=torch.Generator().manual_seed(3))
    side = 8 if upsample else 16
    patches = micro.decoder_pred(micro.decoder_norm(tokens)).view(6, 16, 16, 3)
    kept = patches[:, ::2, ::2] if upsample else patches
    pixels = (kept * torch.tensor(IMAGE_STD) + torch.tensor(IMAGE_MEAN)) * 255
    if color == "luma":
        pixels = (pixels * torch.tensor((0.299, 0.587, 0.114))).sum(-1, keepdim=True)
    elif order == "bgr":
        pixels = pixels.flip(-1)
    folded = folds.fold_tail(
        micro.decoder_norm, micro.decoder_pred, 16, upsample=upsample, channel_order=order, color=color
    )
    channels = 1 if color == "luma" else 3
    assert folded.weight.shape == (64, side * side * channels)
    got = normalized(tokens).numpy() @ folded.weight + folded.bias
    np.testing.assert_allclose(got, pixels.flatten(1).detach(), rtol=1e-4, atol=5e-3)


def test_reduction_router_and_adapters_include_the_norms_before_them(micro):
    generator = micro.encoder.moas[0].prompts
    pair = torch.randn(9, 128, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        reduced = generator.reduce(generator.norm1(pair))
        u = generator.norm2(reduced)
    folded = folds.fold_reduction(generator.norm1, generator.reduce)
    got = normalized(pair, generator.norm1.eps).numpy() @ folded.weight + folded.bias
    np.testing.assert_allclose(got, reduced, **CLOSE)

    plain = normalized(reduced, generator.norm2.eps).numpy()
    for task in range(3):
        router = folds.fold_router(generator.norm2, generator.routers, task)
        expected = (u @ generator.routers.gate[task]).detach()
        np.testing.assert_allclose(plain @ router.weight + router.bias, expected, **CLOSE)

    down, up = folds.fold_adapters(generator.norm2, generator.bank, router)
    hidden = np.maximum(plain @ down.weight + down.bias, 0)
    outputs, logits = np.split(hidden @ up.weight + up.bias, [4 * 16], axis=1)
    # The last task's logits pass through the ReLU as relu(l) - relu(-l).
    np.testing.assert_allclose(logits, expected, **CLOSE)
    outputs = outputs.reshape(9, 4, 16)
    for i, adapter in enumerate(generator.bank.adapters):
        np.testing.assert_allclose(outputs[:, i], adapter(u).detach(), **CLOSE)


def test_source_embeddings_and_mix_are_folded_into_the_fusion_convolutions(micro):
    moa = micro.encoder.moas[1]
    x, y = (torch.randn(1, 14, 14, 64, generator=torch.Generator().manual_seed(s)) for s in (6, 7))
    px, py = (torch.rand(1, 14, 14, 1, generator=torch.Generator().manual_seed(s)) for s in (8, 9))
    embedding_x, embedding_y = moa.source_embedding[2]
    with torch.no_grad():
        expected = moa.mix * moa.fusion(px * x + embedding_x + py * y + embedding_y)
        folded = folds.fold_fusion(moa, 2)
        h = (px * x + py * y).numpy() @ folded.down.weight + folded.down.bias
        narrow = torch.from_numpy(h).permute(0, 3, 1, 2)
        fused = (
            F.conv2d(narrow, torch.from_numpy(folded.kernel), padding=1).permute(0, 2, 3, 1).numpy()
            @ folded.up
        )
    np.testing.assert_allclose(fused, expected, **CLOSE)
    assert folded.keep == pytest.approx(1 - moa.mix.item())
