"""A model grown from a smaller one is that model, until it is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from micro_model import MICRO, MICRO_WEIGHTS, frames, scrambled
from tcmoa import TCMoA, load_weights, save_weights
from tcmoa.config import TrainConfig
from tcmoa.grow import grow
from tcmoa.initial_model import build_model
from tcmoa.model import positions_on_grid
from tcmoa.reference import fuse_frames
from tcmoa.synthetic_pairs import synthetic_infrared
from tcmoa.weights import to_published
from tcmoa_runtime.errors import InputError

TASKS = ("vif", "mef", "mff")
ADAPTED = ("_MoA.", "FusionLayer.", "relative_position.", "Alpha_")
"""Parts of published names that an MAE backbone does not have."""


def grown(small, sizes, seed=0, **changes):
    large = TCMoA(replace(sizes, **changes)).eval()
    grow(small, large, seed)
    return large


def fuse(model, x, y, task):
    with torch.no_grad():
        return model(x, y, task)


def two_images(side):
    x, y = torch.from_numpy(frames(side, 2 * side, count=2)).permute(0, 3, 1, 2).float().div(255).split(1)
    return x, y


@pytest.mark.parametrize(
    "changes",
    [
        {"embed_dim": 128, "num_heads": 4},
        {"decoder_embed_dim": 192, "decoder_num_heads": 6},
        {"embed_dim": 192, "num_heads": 6, "decoder_embed_dim": 128, "decoder_num_heads": 4},
        {"decoder_depth": 6},
        {"decoder_embed_dim": 128, "decoder_num_heads": 4, "decoder_depth": 6},
    ],
    ids=lambda changes: "+".join(changes),
)
@pytest.mark.parametrize("task", TASKS)
def test_a_grown_model_fuses_like_the_small_one(changes, task):
    # With tau 4 a TC-MoA would stand after the sixth block, which is refused.
    small = scrambled(replace(MICRO, window=4, tau=8 if "decoder_depth" in changes else 4))
    large = grown(small, small.sizes, **changes)
    x, y = two_images(small.window_pixels)
    before, after = fuse(small, x, y, task), fuse(large, x, y, task)
    torch.testing.assert_close(after.image, before.image, atol=2e-5, rtol=0)
    for old, new in zip(before.prompts, after.prompts, strict=True):
        torch.testing.assert_close(new, old, atol=2e-6, rtol=0)


def test_an_added_block_does_nothing_and_can_learn():
    small = scrambled(replace(MICRO, window=4, depth=2))
    large = grown(small, small.sizes, depth=4)
    x, y = two_images(small.window_pixels)
    result = large(x, y, "vif")
    torch.testing.assert_close(result.image, fuse(small, x, y, "vif").image, atol=2e-5, rtol=0)
    result.image.square().mean().backward()
    for block in large.encoder.blocks[2:]:
        assert block.attn.proj.weight.grad.abs().max() > 0
        assert block.mlp.fc2.weight.grad.abs().max() > 0


def test_copies_of_a_channel_learn_different_things():
    small = scrambled(replace(MICRO, window=4))
    large = grown(small, small.sizes, embed_dim=128, num_heads=4)
    x, y = two_images(small.window_pixels)
    large(x, y, "mff").image.square().mean().backward()
    for weight in (large.encoder.blocks[3].mlp.fc1.weight, large.encoder.blocks[0].attn.qkv.weight):
        copies = weight.grad.unflatten(0, (-1, 2, 64) if weight.shape[0] == 384 else (2, -1))
        one, other = copies.unbind(1) if copies.dim() == 4 else copies
        assert (one - other).abs().mean() > 0.05 * one.abs().mean()


def test_position_tables_are_resized_to_the_new_window():
    small = TCMoA(replace(MICRO, window=4))  # its tables are MAE's, the two axes of which differ
    large = grown(small, small.sizes, window=6, embed_dim=128, num_heads=4)
    for half in large.pos_embed.unflatten(2, (2, -1)).unbind(2):
        assert torch.equal(half[:, :1], small.pos_embed[:, :1])
        assert torch.equal(half[:, 1:].unflatten(1, (6, 6)), positions_on_grid(small.pos_embed, (6, 6)))


@pytest.mark.parametrize(("window", "least"), [(10, 90), (14, 34)])
@pytest.mark.parametrize("task", TASKS)
def test_nano_grows_to_twice_its_width_and_larger_windows(task, photo, window, least):
    """With windows of 14 tokens instead of 10 the image changes a little."""
    small = load_weights("nano").eval()
    sizes, twice = small.sizes, {}
    for name in ("embed_dim", "num_heads", "decoder_embed_dim", "decoder_num_heads"):
        twice[name] = 2 * getattr(sizes, name)
    large = grown(small, sizes, window=window, **twice)
    infrared = synthetic_infrared(photo.astype(np.float32) / 255)
    x, y = torch.from_numpy(photo)[None], torch.from_numpy((255 * infrared).astype(np.uint8))[None]
    before, after = (fuse_frames(model, x, y, task).fused for model in (small, large))
    assert -10 * torch.log10(((before - after) / 255).square().mean()) > least


@pytest.mark.parametrize("task", TASKS)
def test_a_grown_model_that_weighs_the_sources_fuses_like_the_small_one(task):
    small = scrambled(MICRO_WEIGHTS)
    large = grown(small, small.sizes, embed_dim=128, num_heads=4, decoder_embed_dim=192, decoder_num_heads=6)
    x, y = two_images(small.window_pixels)
    before, after = fuse(small, x, y, task), fuse(large, x, y, task)
    torch.testing.assert_close(after.decoded, before.decoded, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.image, before.image, atol=2e-3, rtol=0)


def test_offsets_keep_their_bias_whatever_the_window():
    small = scrambled(replace(MICRO, window=4))
    larger, smaller = (grown(small, small.sizes, window=window) for window in (6, 2))
    old = small.encoder.biases[0].table.unflatten(0, (7, 7))
    more = larger.encoder.biases[0].table.unflatten(0, (11, 11))
    assert torch.equal(more[2:-2, 2:-2], old)
    assert torch.equal(more[0, 0], old[0, 0])  # beyond: the nearest within
    assert torch.equal(smaller.encoder.biases[0].table.unflatten(0, (3, 3)), old[2:-2, 2:-2])


def test_the_unequal_parts_depend_on_the_seed():
    small = scrambled(replace(MICRO, window=4))
    one, again, other = (
        grown(small, small.sizes, seed, embed_dim=128, num_heads=4).decoder_embed.weight for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 96, "num_heads": 3}, "embed_dim is 96; expected a multiple of 64"),
        ({"embed_dim": 128}, "num_heads is 2; expected 4, as heads keep their size"),
        ({"decoder_embed_dim": 128, "decoder_num_heads": 2}, "decoder_num_heads is 2; expected 4"),
        ({"depth": 4}, "depth is 4; expected 6 or more"),
        ({"decoder_depth": 6}, "decoder_depth is 6; expected 4 or more without another TC-MoA"),
        ({"experts": 5}, "experts is 4 in the small model and 5 in the large one; expected the same"),
        ({"mlp_ratio": 2}, "mlp_ratio is 4 in the small model and 2 in the large one"),
    ],
)
def test_sizes_that_cannot_be_grown_are_refused(changes, message):
    small = TCMoA(MICRO)
    with pytest.raises(ValueError, match=message):
        grow(small, TCMoA(replace(MICRO, **changes)))


def test_a_run_starts_with_a_grown_model(tmp_path):
    small, messages = scrambled(MICRO_WEIGHTS), []
    file = tmp_path / "small.safetensors"
    save_weights(small, file)
    sizes = {"embed_dim": 128, "num_heads": 4, "decoder_embed_dim": 128, "decoder_num_heads": 4, "window": 4}
    model = build_model(TrainConfig(pairs={}, start=f"grow:{file}", sizes=sizes), messages.append).eval()
    x, y = two_images(small.window_pixels)
    torch.testing.assert_close(
        fuse(model, x, y, "vif").decoded, fuse(small, x, y, "vif").decoded, atol=1e-4, rtol=0
    )
    assert messages[0] == f"{file}: custom, grown to custom"


def test_a_file_that_does_not_grow_ends_in_one_line(tmp_path):
    file = tmp_path / "small.safetensors"
    save_weights(scrambled(), file)
    with pytest.raises(
        InputError, match=r"small.safetensors: does not grow to preset 'large': embed_dim is 96"
    ):
        build_model(TrainConfig(pairs={}, preset="large", start=f"grow:{file}", sizes={"embed_dim": 96}))
    with pytest.raises(InputError, match="no such weights file"):
        build_model(TrainConfig(pairs={}, start=f"grow:{tmp_path / 'none.safetensors'}"))
    with pytest.raises(
        InputError, match=r"\[sizes\]: does not fit preset 'tiny': depth is 5; expected an even number"
    ):
        build_model(TrainConfig(pairs={}, start=f"grow:{file}", sizes={"depth": 5}))


def test_an_mae_backbone_does_not_grow(tmp_path):
    state = to_published(scrambled())
    file = tmp_path / "mae.pth"
    torch.save(
        {"model": {name: value for name, value in state.items() if not any(a in name for a in ADAPTED)}}, file
    )
    with pytest.raises(
        InputError, match=r"an MAE backbone; expected a trained TC-MoA\. Write 'mae:' before the file name"
    ):
        build_model(TrainConfig(pairs={}, start=f"grow:{file}"))
