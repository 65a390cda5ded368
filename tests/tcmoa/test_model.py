"""The whole model: its size, prompt control, routers, what it refuses, training against eval mode."""

import pytest
import torch

from micro_model import scrambled
from tcmoa import PRESETS, TCMoA
from tcmoa.blocks import round_through
from tcmoa.moa import PromptControl
from tcmoa.model import positions_on_grid, sincos_positions
from tcmoa.trainable import ADAPTED


def fuse(model, pair, **options):
    with torch.no_grad():
        return model(*pair, options.pop("task", "vif"), **options)


@pytest.mark.parametrize(
    ("preset", "total", "outside_backbone", "embeddings"),
    [("base", 115_772_525, 3_865_197, 19_968), ("large", 340_886_920, 11_345_544, 43_008)],
)
def test_parameter_counts_are_those_of_the_released_code(preset, total, outside_backbone, embeddings):
    """115.77 M and 3.865 M, 340.89 M and 11.35 M. The released code never registers the source embeddings.

    Position tables, class token and the routers' noise weights count as they do there.
    """
    with torch.device("meta"):
        model = TCMoA(PRESETS[preset])
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(n for name, n in counts.items() if "source_embedding" in name) == embeddings
    own = {name: n for name, n in counts.items() if "source_embedding" not in name}
    assert sum(own.values()) == total
    assert sum(n for name, n in own.items() if any(part in name for part in ADAPTED)) == outside_backbone


def test_source_embeddings_are_parameters_that_learn(pair):
    model = scrambled()
    model(*pair, "mef").image.square().mean().backward()
    for k, moa in enumerate([*model.encoder.moas, *model.decoder.moas]):
        assert any(parameter is moa.source_embedding for parameter in model.parameters())
        used = moa.source_embedding.grad.abs().sum((1, 2)) > 0  # by task
        assert used.tolist() == [False, True, False], k


def test_neutral_prompt_control_changes_no_bit(micro, pair, monkeypatch):
    neutral = fuse(micro, pair, scale=1.0, shift=0.0)
    maps = fuse(micro, pair, scale=torch.ones(1, 14, 14), shift=torch.zeros(1, 14, 14))
    monkeypatch.setattr(PromptControl, "apply", lambda _, prompt_x, prompt_y: (prompt_x, prompt_y))
    uncontrolled = fuse(micro, pair, scale=7.0, shift=7.0)
    assert torch.equal(neutral.image, uncontrolled.image)
    assert torch.equal(maps.image, uncontrolled.image)


def test_beta_moves_the_first_prompts_up_in_x_and_down_in_y(micro, pair):
    plain, moved = fuse(micro, pair), fuse(micro, pair, shift=0.3)
    assert torch.equal(moved.prompts[0][0], plain.prompts[0][0] + 0.3)
    assert torch.equal(moved.prompts[0][1], plain.prompts[0][1] - 0.3)


def test_alpha_zero_leaves_one_half_plus_and_minus_beta_everywhere(micro, pair):
    for prompt_x, prompt_y in fuse(micro, pair, scale=0.0, shift=0.25).prompts:
        assert prompt_x.unique().tolist() == [0.75]
        assert prompt_y.unique().tolist() == [0.25]


def test_a_number_equals_a_constant_map(micro, pair):
    number = fuse(micro, pair, scale=1.5, shift=-0.125)
    constant = fuse(micro, pair, scale=torch.full((1, 14, 14), 1.5), shift=torch.full((1, 14, 14), -0.125))
    assert torch.equal(number.image, constant.image)


def test_a_map_changes_its_own_token_only(micro, pair):
    shift = torch.zeros(1, 14, 14)
    shift[0, 3, 9] = 0.5
    changed = fuse(micro, pair, shift=shift).prompts[0][0] != fuse(micro, pair).prompts[0][0]
    assert changed.nonzero().tolist() == [[0, 3, 9]]


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_routers_of_one_name_equal_the_task(micro, pair, task):
    by_task = fuse(micro, pair, task=task)
    by_routers = fuse(micro, pair, task="vif", routers=[task] * 3)
    assert torch.equal(by_task.image, by_routers.image)


@pytest.mark.parametrize("k", range(3))
def test_a_router_of_another_task_acts_from_its_tcmoa_on(micro, pair, k):
    routers = ["vif"] * 3
    routers[k] = "mff"
    plain, other = fuse(micro, pair), fuse(micro, pair, routers=routers)
    same = [torch.equal(a[0], b[0]) for a, b in zip(plain.prompts, other.prompts, strict=True)]
    assert same == [True] * k + [False] * (3 - k)
    assert not torch.equal(plain.image, other.image)


@pytest.mark.parametrize(
    ("routers", "message"),
    [
        (["vif"] * 2, "2 routers; expected 3, one for each TC-MoA"),
        (["vif"] * 4, "4 routers; expected 3, one for each TC-MoA"),
        (["vif", "mfe", "mff"], "unknown task 'mfe'; expected one of vif, mef, mff"),
    ],
)
def test_wrong_routers_are_refused(micro, pair, routers, message):
    with pytest.raises(ValueError, match=message):
        micro(*pair, "vif", routers=routers)


def test_an_unknown_task_is_refused(micro, pair):
    with pytest.raises(ValueError, match="unknown task 'fusion'"):
        micro(*pair, "fusion")


@pytest.mark.parametrize(
    ("x", "y", "upsample"),
    [
        ((112, 112), (112, 224), True),
        ((112, 120), (112, 120), True),
        ((56, 112), (56, 112), True),
        ((112, 112), (112, 112), False),
    ],
)
def test_wrong_frame_sizes_are_refused(x, y, upsample):
    model = scrambled(upsample=upsample)
    with pytest.raises(ValueError, match=f"H and W multiples of {112 if upsample else 224}"):
        model(torch.zeros(1, 3, *x), torch.zeros(1, 3, *y), "vif")


@pytest.mark.parametrize("upsample", [True, False])
def test_the_result_has_the_size_of_the_frame(pair, upsample):
    model = scrambled(upsample=upsample)
    x = pair[0].repeat(2, 1, 2, 4)  # [2, 3, 224, 448]
    result = fuse(model, (x, x))
    assert result.image.shape == x.shape
    assert result.decoded.shape == ((2, 3, 448, 896) if upsample else (2, 3, 224, 448))
    token = 8 if upsample else 16
    assert {prompt.shape for both in result.prompts for prompt in both} == {(2, 224 // token, 448 // token)}


def test_images_of_a_batch_do_not_mix(micro, pair):
    x, y = pair
    both = fuse(micro, (torch.cat((x, y)), torch.cat((y, x))))
    alone = fuse(micro, (y, x))
    torch.testing.assert_close(both.image[1:], alone.image, rtol=1e-4, atol=1e-5)


def test_training_is_noisy_and_balances_the_adapters(pair):
    model = scrambled().train()
    first, second = fuse(model, pair), fuse(model, pair)
    assert not torch.equal(first.image, second.image)
    assert first.imbalance > 0


def test_eval_is_deterministic_and_balances_nothing(micro, pair):
    first, second = fuse(micro, pair), fuse(micro, pair)
    assert torch.equal(first.image, second.image)
    assert first.imbalance == 0


def test_adapters_stay_float32_under_autocast(micro, pair):
    with torch.autocast("cpu", torch.bfloat16):
        prompts = fuse(micro, pair).prompts
    assert {prompt.dtype for both in prompts for prompt in both} == {torch.float32}


def test_position_table_is_maes():
    """Half of the channels tell the column, half the row; the class token's row is zero."""
    table = sincos_positions(16, 14)
    assert table.shape == (1, 1 + 14 * 14, 16)
    assert table[0, 0].abs().max() == 0
    grid = positions_on_grid(table, (14, 14))[0]
    assert torch.equal(grid, table[0, 1:].view(14, 14, 16))
    omega = 10000.0 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(
        grid[2, 5], torch.cat([f(n * omega) for n in (5, 2) for f in (torch.sin, torch.cos)])
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_training_for_a_precision_rounds_values_and_passes_gradients(precision):
    model = scrambled()
    x, y = (torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    exact = model(x, y, "vif").image
    model.train_for(precision)
    seen = []
    hook = model.encoder.blocks[1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    rounded = model(x, y, "vif").image
    hook.remove()
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert torch.equal(seen[0], seen[0].to(dtype).float())
    apart = (rounded - exact).abs().max()
    assert 0 < apart < 0.2
    rounded.square().mean().backward()
    # The gradient reaches what lies in front of all roundings.
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0
    model.train_for("fp32")
    assert torch.equal(model(x, y, "vif").image, exact)


def test_training_for_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="expected one of fp32, fp16, bf16"):
        scrambled().train_for("int4")


def test_rounding_passes_gradients_unchanged():
    values = torch.linspace(-3, 3, 101, requires_grad=True)
    rounded = round_through(values, torch.bfloat16)
    assert torch.equal(rounded, values.to(torch.bfloat16).float())
    rounded.backward(torch.arange(101.0))
    assert torch.equal(values.grad, torch.arange(101.0))
