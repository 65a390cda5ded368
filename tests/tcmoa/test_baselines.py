"""The baselines of the paper's Table 5, the variants of Table 4 and Fig. 8: what they compute and what trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from micro_model import MICRO, frames, scrambled
from tcmoa import TCMoA, load_weights, save_weights
from tcmoa.adaptformer import ParallelAdapter
from tcmoa.blocks import Block
from tcmoa.config import TrainConfig
from tcmoa.initial_model import build_model
from tcmoa.moa import PromptControl, TaskCustomizedMoA, even_mixture
from tcmoa.reference import fuse_frames
from tcmoa.weights import SIZES_KEY, to_published
from tcmoa_export import export_bundle
from tcmoa_export.spec import make_spec
from tcmoa_runtime import Fuser
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import ExportOptions
from training_runs import CONFIG, SMALL, read_checkpoint, train

pytestmark = pytest.mark.usefixtures("small_presets")

BASELINES = ["adaptformer", "frozen"]
SINGLE = replace(MICRO, experts=1, top_k=1)


def test_the_adapter_is_a_tenth_of_a_relu_bottleneck():
    torch.manual_seed(0)
    adapter, normed = ParallelAdapter(32), torch.randn(3, 32)
    assert adapter.down.weight.shape == (64, 32)
    assert adapter(normed).abs().max() == 0  # the start is the model that it adapts
    torch.nn.init.normal_(adapter.up.weight)
    hidden = (normed @ adapter.down.weight.T).clamp(min=0)
    torch.testing.assert_close(adapter(normed), 0.1 * hidden @ adapter.up.weight.T)


def test_the_adapter_is_parallel_to_the_mlp_and_reads_the_same_normalized_tokens():
    torch.manual_seed(0)
    block = Block(32, 2, 4, 4, 0, has_adapter=True)
    plain = Block(32, 2, 4, 4, 0)
    plain.load_state_dict(block.state_dict(), strict=False)
    seen = []
    block.norm2.register_forward_hook(lambda _, __, normed: seen.append(normed))
    tokens, bias = torch.randn(1, 4, 8, 32), torch.zeros(2, 16, 16)
    assert torch.equal(block(tokens, bias), plain(tokens, bias))
    torch.nn.init.normal_(block.adapter.up.weight)
    torch.testing.assert_close(block(tokens, bias), plain(tokens, bias) + block.adapter(seen[0]))


@pytest.mark.parametrize("restandardizes", [False, True])
def test_the_even_mixture_is_a_tcmoa_with_prompts_of_one_half_and_no_fusion_layer(restandardizes):
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 4, 5, 32)
    moa = TaskCustomizedMoA(32, 3, 4, 2, restandardizes=restandardizes).eval()
    moa.fusion.forward = lambda h: h
    with torch.no_grad():
        moa.source_embedding.zero_()
        expected = moa(x, y, 0, PromptControl(0.0, 0.2))  # alpha 0 makes every prompt 0.5 plus and minus beta
    got = even_mixture(x, y, PromptControl(0.0, 0.2), restandardizes=restandardizes)
    for name in ("x", "y", "prompt_x", "prompt_y"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name))
    assert got.imbalance == 0


@pytest.mark.parametrize("adaptation", BASELINES)
def test_a_baseline_first_computes_what_its_mae_computes(adaptation, pair):
    """On one image for both sources, blocks of MAE in one window are all there is."""
    model = TCMoA(replace(MICRO, adaptation=adaptation)).eval()
    with torch.no_grad():
        image = model(pair[0], pair[0], "vif").image
        tokens = model.embed(pair[0])
        for stage, positions in ((model.encoder, None), (model.decoder, model.decoder_pos_embed[:, 1:])):
            if positions is not None:
                tokens = model.decoder_embed(model.norm(tokens)) + positions.view(1, 14, 14, -1)
            for block in stage.blocks:
                tokens = vit_block(block, tokens)
        patches = model.decoder_pred(model.decoder_norm(tokens))
        decoded = model.unpatchify(patches)[:, :, ::2, ::2]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(image, decoded * std.view(3, 1, 1) + mean.view(3, 1, 1), rtol=1e-3, atol=1e-4)


def vit_block(block, grid):
    """Global attention and MLP, as ViT has them."""
    tokens = grid.flatten(1, 2)
    q, k, v = (
        block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, block.attn.heads, -1)).permute(2, 0, 3, 1, 4)
    )
    attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    tokens = tokens + block.attn.proj(attended)
    return (tokens + block.mlp(block.norm2(tokens))).view(grid.shape)


@pytest.mark.parametrize("adaptation", BASELINES)
def test_prompts_of_a_baseline_are_one_half_and_can_be_steered(adaptation, pair):
    model = TCMoA(replace(MICRO, adaptation=adaptation)).eval()
    with torch.no_grad():
        plain, moved = model(*pair, "vif"), model(*pair, "vif", shift=0.4)
    assert len(plain.prompts) == model.prompt_count
    assert {prompt.unique().item() for both in plain.prompts for prompt in both} == {0.5}
    assert not torch.allclose(plain.image, moved.image)


@pytest.mark.parametrize(
    ("adaptation", "trained"),
    [("adaptformer", (".adapter.", "decoder_pred.")), ("frozen", ("decoder_pred.",))],
)
def test_a_baseline_trains_its_adapters_and_the_final_linear_layer(pairs, tmp_path, adaptation, trained):
    text = f'adaptation = "{adaptation}"\nfreeze_backbone = true\n{CONFIG}'
    start = build_model(TrainConfig(pairs={}, start="random", adaptation=adaptation, freeze_backbone=True))
    _, weights = train(pairs, tmp_path / "run", text, rounds=2)
    after = read_checkpoint(tmp_path / "run")["model"]
    changed = {name for name, value in start.state_dict().items() if not torch.equal(value, after[name])}
    assert changed == {name for name in after if any(part in name for part in trained)}
    assert load_weights(weights).sizes == replace(SMALL, adaptation=adaptation)


@pytest.mark.parametrize("sizes", [replace(MICRO, adaptation=name) for name in BASELINES], ids=BASELINES)
def test_weights_of_a_baseline_come_back(tmp_path, sizes):
    model = scrambled(sizes)
    save_weights(model, tmp_path / "w.safetensors")
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded.sizes == sizes
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("adaptation", BASELINES)
def test_baselines_are_not_exported(adaptation):
    model = TCMoA(replace(MICRO, adaptation=adaptation))
    with pytest.raises(InputError, match=f"the baseline '{adaptation}' of the paper's Table 5") as caught:
        make_spec(model, ExportOptions(task="vif", size=(112, 112)))
    assert "\n" not in str(caught.value)


def test_files_of_tcmoas_do_not_mention_the_adaptation(tmp_path):
    save_weights(TCMoA(MICRO), tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert "adaptation" not in file.metadata()[SIZES_KEY]
    assert "adaptation" not in MICRO.to_dict()
    assert replace(MICRO, adaptation="frozen").to_dict()["adaptation"] == "frozen"


def test_a_start_as_fusion_needs_tcmoas():
    with pytest.raises(InputError, match="start 'fusion': does not fit preset 'tiny'"):
        build_model(TrainConfig(pairs={}, adaptation="frozen", freeze_backbone=True))


def test_a_single_adapter_always_has_the_whole_gate(pair):
    model = scrambled(SINGLE).train()
    result = model(*pair, "mef")
    assert result.imbalance == 0
    gates, _ = model.encoder.moas[0].prompts.routers(torch.randn(5, 16), 0)
    assert gates.tolist() == [[1.0]] * 5
    result.image.square().mean().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    unused = [p for p in trained if p.grad is None]
    assert [p is model.cls_token for p in unused] == [True]


@pytest.mark.parametrize(
    "sizes", [SINGLE, replace(MICRO, experts=2), replace(MICRO, tau=2), replace(MICRO, experts=6)], ids=str
)
def test_variants_of_tcmoas_are_saved_inferred_and_exported(tmp_path, sizes):
    """They are ordinary TC-MoAs: a file without our notes is enough."""
    model = scrambled(sizes)
    torch.save({"model": to_published(model)}, tmp_path / "w.pth")
    loaded = load_weights(tmp_path / "w.pth")
    assert loaded.sizes == sizes
    spec = make_spec(loaded, ExportOptions(task="vif", size=(112, 112)))
    assert len(spec.routers) == model.prompt_count


@pytest.mark.parametrize("sizes", [SINGLE, replace(MICRO, tau=2)], ids=["one adapter", "tau 2"])
def test_the_graph_of_a_variant_agrees_with_its_model(tmp_path, sizes):
    model = scrambled(sizes)
    export_bundle(model, ExportOptions(task="mff", size=(112, 112)), tmp_path / "bundle")
    x, y = frames(112, 112, 2)
    with Fuser.load(tmp_path / "bundle", backend="onnxruntime") as fuser:
        fused = fuser(x, y)
    expected = (
        fuse_frames(model, torch.from_numpy(x)[None], torch.from_numpy(y)[None], "mff").fused[0].numpy()
    )
    assert np.abs(fused - expected).max() < 0.51
