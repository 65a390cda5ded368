"""16-bit backbones in training: near the float32 losses, finite gradients, exact resuming, all on a CPU."""

import json
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from micro_model import scrambled
from tcmoa.losses import PUBLISHED, TERMS, prompt_regularizer, weighted_terms
from tcmoa.mixed_precision import MixedPrecision
from training_runs import CONFIG, assert_same, read_checkpoint, train

pytestmark = pytest.mark.usefixtures("small_presets")

CPU = torch.device("cpu")
TASKS = ["vif", "mef", "mff"]


def step(pair, amp, task):
    """Losses and gradients of one forward and backward pass."""
    model = scrambled().train()
    torch.manual_seed(0)  # the routers' noise
    with MixedPrecision(amp, CPU).autocast():
        result = model(*pair, task)
    terms = weighted_terms(PUBLISHED[task], *pair, result.image.float())
    terms["prompts"] = prompt_regularizer(result.prompts, model.sizes.encoder_moas)
    torch.stack(list(terms.values())).sum().backward()
    return result, terms, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_losses_stay_close_to_float32_and_gradients_finite(pair, amp, task):
    _, exact, reference = step(pair, "none", task)
    _, terms, gradients = step(pair, amp, task)
    assert terms.keys() == exact.keys()
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05, abs=2e-3), name
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name
    both = [torch.cat([g.flatten() for g in some.values()]) for some in (reference, gradients)]
    assert torch.cosine_similarity(*both, dim=0) > 0.98


def test_the_backbone_is_in_16_bits_and_the_tcmoas_are_not(pair):
    model = scrambled()
    seen = {}
    model.encoder.blocks[0].attn.qkv.register_forward_hook(lambda *a: seen.update(qkv=a[2].dtype))
    model.encoder.blocks[1].register_forward_pre_hook(lambda _, a: seen.update(stream=a[0].dtype))
    model.encoder.moas[0].prompts.reduce.register_forward_hook(lambda *a: seen.update(reduce=a[2].dtype))
    model.encoder.moas[0].fusion.conv2.register_forward_hook(lambda *a: seen.update(fusion=a[2].dtype))
    with torch.no_grad(), MixedPrecision("bf16", CPU).autocast():
        result = model(*pair, "vif")
    assert seen == {
        "qkv": torch.bfloat16,
        "stream": torch.float32,
        "reduce": torch.float32,
        "fusion": torch.float32,
    }
    assert result.prompts[0][0].dtype == torch.float32


def test_without_mixed_precision_nothing_is_cast(pair):
    model = scrambled()
    with torch.no_grad():
        plain = model(*pair, "vif").image
        with MixedPrecision("none", CPU).autocast():
            assert torch.equal(model(*pair, "vif").image, plain)


def test_a_step_in_float32_is_a_step_of_adamw():
    def trained(how):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            how(model(torch.ones(2, 4)).square().sum(), model, optimizer)
        return model.state_dict()

    def plainly(loss, model, optimizer):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    precision = MixedPrecision("none", CPU)
    assert_same(dict(trained(lambda *a: precision.step(*a, 0.5))), dict(trained(plainly)))
    assert precision.state_dict() == {}


def test_fp16_scales_its_loss_and_skips_a_step_that_overflows():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    precision = MixedPrecision("fp16", CPU)
    precision.step(model(torch.ones(1, 2)).sum(), model, optimizer, 1.0)
    assert precision.state_dict()["scale"] == 65536.0
    before = model.weight.detach().clone()
    precision.step(model(torch.full((1, 2), 1e38)).sum(), model, optimizer, 1.0)  # 1e38 * 65536 is infinite
    assert torch.equal(model.weight, before)
    assert precision.state_dict()["scale"] == 32768.0
    again = MixedPrecision("fp16", CPU)
    again.load_state_dict(precision.state_dict())
    assert again.state_dict() == precision.state_dict()


def test_clipping_sees_the_true_gradients_in_fp16():
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    MixedPrecision("fp16", CPU).step(model(torch.tensor([[3.0, 4.0]])).sum(), model, optimizer, 1.0)
    torch.testing.assert_close(before - model.weight, torch.tensor([[0.6, 0.8]]))


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_run_in_16_bits_resumes_exactly(pairs, tmp_path, amp):
    text = f'amp = "{amp}"\n{CONFIG}'
    train(pairs, tmp_path / "whole", text)
    train(pairs, tmp_path / "halves", text, rounds=3)
    assert ("scale" in read_checkpoint(tmp_path / "halves")["loss_scale"]) == (amp == "fp16")
    train(pairs, tmp_path / "halves", text, resume=True)
    assert_same(read_checkpoint(tmp_path / "halves"), read_checkpoint(tmp_path / "whole"))
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    exact = tmp_path / "exact"
    train(pairs, exact, CONFIG, rounds=1)
    first = [
        json.loads(text)["losses"]["vif"]["total"] for text in (lines[0], (exact / "log.jsonl").read_text())
    ]
    assert first[0] == pytest.approx(first[1], rel=0.02)
    assert first[0] != first[1]


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as a GPU does; `meta` lets some of them pass."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs or {}))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim()}
        assert len(devices) < 2 or "copy" in str(operation), operation
        return operation(*args, **(kwargs or {}))


def test_no_operation_of_a_step_leaves_the_models_device(monkeypatch):
    """On `meta`, in place of the GPU that no test here has."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no `meta`
    x = torch.rand(1, 3, 112, 112, device="meta")
    with pytest.raises(AssertionError), OneDevice():
        F.conv2d(x, torch.rand(3, 3, 1, 1))
    model = scrambled().to("meta").train()
    for task in TASKS:
        with OneDevice():
            result = model(x, x, task, scale=torch.ones(1, 14, 14, device="meta"))
            terms = weighted_terms(dict.fromkeys(TERMS, 1.0), x, x, result.image)
            regularizer = prompt_regularizer(result.prompts, model.sizes.encoder_moas)
            total = torch.stack([*terms.values(), regularizer, result.imbalance]).sum()
            total.backward()
        assert total.device.type == "meta"
