"""Parts of the graph in ONNX Runtime against the modules that they replace."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_pieces import run_piece
from tcmoa.blocks import Block
from tcmoa.moa import PromptControl, restandardize
from tcmoa_export import blocks_graph, moa_graph
from tcmoa_export.token_graph import TokenGraph
from tcmoa_export.token_layout import TokenLayout

LAYOUT = TokenLayout(200, 300, "pad", True, 14)  # 2 x 3 windows
CLOSE = {"rtol": 1e-4, "atol": 5e-5}


@pytest.fixture(autouse=True, scope="module", params=["position_major", "window_major"])
def order(request):
    """Run every test in both orders of tokens."""
    globals()["LAYOUT"] = replace(LAYOUT, order=request.param)


def to_window_order(grid):
    """Rearrange [B, gh, gw, C] into [B*tokens, C] in window order."""
    return np.ascontiguousarray(to_raster_order(grid)[LAYOUT.raster_positions(len(grid))])


def to_raster_order(grid):
    """Rearrange [B, gh, gw, C] into [B*tokens, C]."""
    return grid.reshape(-1, grid.shape[-1])


def tokens(seed, count=2, dim=64):
    return torch.randn(count, *LAYOUT.image_grid, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("index", [0, 1])
def test_a_block_attends_in_windows_shifted_or_not(micro, index):
    block: Block = micro.encoder.blocks[index]
    bias = micro.encoder.biases[0]
    grid = tokens(0)
    with torch.no_grad():
        expected = block(grid, bias()).numpy()

    def build(graph, t):
        attended = blocks_graph.add_attention(TokenGraph(graph, LAYOUT, 2), t, block, bias)
        return blocks_graph.add_mlp(graph, attended, block)

    (got,) = run_piece(build, t=to_window_order(grid.numpy()))
    np.testing.assert_allclose(got, to_window_order(expected), **CLOSE)


@pytest.mark.parametrize("index", [0, 1])
def test_keeping_tokens_undoes_the_shift_in_the_same_gather(micro, index):
    block: Block = micro.decoder.blocks[index]
    bias = micro.decoder.biases[0]
    grid = tokens(1)
    with torch.no_grad():
        expected = block(grid, bias()).numpy()
    keep = LAYOUT.kept_rows(2)

    def build(graph, t):
        attended = blocks_graph.add_attention(TokenGraph(graph, LAYOUT, 2), t, block, bias, keep=keep)
        return blocks_graph.add_mlp(graph, attended, block)

    (got,) = run_piece(build, t=to_window_order(grid.numpy()))
    rows, cols = LAYOUT.kept_grid
    np.testing.assert_allclose(got, expected[:, :rows, :cols].reshape(-1, 64), **CLOSE)


def test_gates_equal_the_router_bank_with_near_ties_and_small_gates(micro):
    bank = micro.encoder.moas[0].prompts.routers
    u = (
        torch.randn(500, 16, generator=torch.Generator().manual_seed(2)) * 8
    )  # large: some gates fall below 1e-4
    with torch.no_grad():
        expected, _ = bank(u, 2)
        logits = (u @ bank.gate[2]).numpy()
    assert ((expected.numpy() > 0).sum(1) < 2).any()
    (got,) = run_piece(lambda graph, z: moa_graph.top_k_gates(graph, z, 500, 4, 2), z=logits)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    logits=st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 2.0]), min_size=5, max_size=5),
        min_size=1,
        max_size=8,
    ),
    experts=st.integers(2, 5),
    top_k=st.integers(1, 5),
)
def test_ties_of_the_router_are_broken_by_index(logits, experts, top_k):
    top_k = min(top_k, experts)
    values = np.array(logits, np.float32)[:, :experts]
    (got,) = run_piece(
        lambda graph, z: moa_graph.top_k_gates(graph, z, len(values), experts, top_k), z=values
    )
    for row, weights in zip(values, got, strict=True):
        chosen = sorted(range(experts), key=lambda i: (-row[i], i))[:top_k]
        raised = np.zeros(experts)
        raised[chosen] = np.exp(row[chosen])
        np.testing.assert_allclose(weights, raised / raised.sum(), rtol=1e-5)


@pytest.mark.parametrize("stage", ["encoder", "decoder"])
@pytest.mark.parametrize("task", [0, 1, 2])
@pytest.mark.parametrize("only_x", [False, True])
def test_a_moa_equals_the_unfolded_one_under_prompt_maps(micro, stage, task, only_x):
    module = getattr(micro, stage).moas[0]
    x, y = tokens(3, 1), tokens(4, 1)
    generator = torch.Generator().manual_seed(5)
    scale = 0.5 + torch.rand(1, *LAYOUT.grid, generator=generator)
    shift = 0.6 * torch.rand(1, *LAYOUT.grid, generator=generator) - 0.3
    rows, cols = (
        torch.arange(n).clamp(max=g - 1) for n, g in zip(LAYOUT.image_grid, LAYOUT.grid, strict=True)
    )
    with torch.no_grad():
        control = PromptControl(scale[:, rows[:, None], cols], shift[:, rows[:, None], cols])
        expected = module(x, y, task, control)

    def build(graph, t, a, b):
        maps = moa_graph.control_maps(graph, a, b, LAYOUT, 1)
        return moa_graph.add_moa(TokenGraph(graph, LAYOUT, 2), t, module, task, maps, only_x=only_x)

    both = to_window_order(np.concatenate([x.numpy(), y.numpy()]))
    new, prompt_x, prompt_y = run_piece(build, t=both, a=scale.numpy(), b=shift.numpy())
    sources = [expected.x] if only_x else [expected.x, expected.y]
    np.testing.assert_allclose(new, to_window_order(np.concatenate([z.numpy() for z in sources])), **CLOSE)
    for got, prompt in ((prompt_x, expected.prompt_x), (prompt_y, expected.prompt_y)):
        np.testing.assert_allclose(got, to_raster_order(prompt[..., None].numpy()), rtol=0, atol=1e-5)


def test_restandardization_gives_each_image_its_old_moments():
    old, new = tokens(6), 3 * tokens(7) + 2
    expected = restandardize(new, old).numpy()

    def build(graph, n, o):
        return moa_graph.restandardize(TokenGraph(graph, LAYOUT, 2), n, o, 64)

    (got,) = run_piece(build, n=to_window_order(new.numpy()), o=to_window_order(old.numpy()))
    np.testing.assert_allclose(got, to_window_order(expected), **CLOSE)


def test_an_exact_zero_in_the_adapters_log_becomes_epsilon_as_published(micro):
    """When every adapter outputs a large negative number, exp is 0 and the prompt is sigmoid(log(eps)), not NaN."""
    module = micro.encoder.moas[0]
    biases = [adapter.fc2.bias.detach().clone() for adapter in module.prompts.bank.adapters]
    try:
        with torch.no_grad():
            for adapter in module.prompts.bank.adapters:
                adapter.fc2.bias.fill_(-200.0)
            x, y = tokens(8, 1), tokens(9, 1)
            expected = module(x, y, 0, PromptControl()).prompt_x
        pair = np.concatenate([to_raster_order(x.numpy()), to_raster_order(y.numpy())], axis=1)

        def build(graph, t):
            return moa_graph.generate_prompts(graph, t, module, 0, LAYOUT.tokens_per_image)

        got, _ = run_piece(build, t=pair)
    finally:
        with torch.no_grad():
            for adapter, bias in zip(module.prompts.bank.adapters, biases, strict=True):
                adapter.fc2.bias.copy_(bias)
    assert np.isfinite(got).all()
    assert got.max() < 1e-10
    np.testing.assert_allclose(got, to_raster_order(expected[..., None].numpy()), rtol=0, atol=1e-12)
