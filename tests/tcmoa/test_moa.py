"""Routers, adapters, prompt control and statistics, each against a slow, obvious reference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tcmoa.moa import AdapterBank, PromptControl, RouterBank, restandardize, squared_variation

TASKS, EXPERTS = 3, 4


@pytest.fixture
def routers():
    torch.manual_seed(1)
    bank = RouterBank(16, TASKS, EXPERTS, top_k=2).eval()
    torch.nn.init.normal_(bank.gate)
    return bank


@given(
    prompts=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)),
    alpha=st.floats(-4, 4, width=32),
    beta=st.floats(-2, 2, width=32),
)
def test_equation_8(prompts, alpha, beta):
    x, y = (torch.tensor([[[p]]]) for p in prompts)
    for control in (PromptControl(alpha, beta), PromptControl(torch.tensor(alpha), torch.tensor(beta))):
        new_x, new_y = control.apply(x, y)
        assert new_x.item() == pytest.approx(0.5 + alpha * (prompts[0] - 0.5) + beta, abs=2e-6)
        assert new_y.item() == pytest.approx(0.5 + alpha * (prompts[1] - 0.5) - beta, abs=2e-6)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_equation_8_without_change_keeps_every_bit(x, y):
    new_x, new_y = PromptControl(1.0, 0.0).apply(torch.tensor(x), torch.tensor(y))
    assert (new_x.item(), new_y.item()) == (x, y)


@pytest.mark.parametrize("task", range(TASKS))
def test_gates_are_the_softmax_of_the_two_best_logits(routers, task):
    u = torch.randn(50, 16)
    gates, imbalance = routers(u, task)
    assert imbalance == 0
    for token, row in zip(u, gates, strict=True):
        logits = [(token @ routers.gate[task, :, n]).item() for n in range(EXPERTS)]
        best = sorted(range(EXPERTS), key=lambda n: -logits[n])[:2]
        total = sum(math.exp(logits[n]) for n in best)
        expected = [math.exp(logits[n]) / total if n in best else 0.0 for n in range(EXPERTS)]
        expected = [gate if gate > 1e-4 else 0.0 for gate in expected]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)
        assert row.sum().item() == pytest.approx(1, abs=2e-4)


def test_gates_up_to_the_floor_become_zero_and_the_other_keeps_its_value(routers):
    with torch.no_grad():
        routers.gate.zero_()
        routers.gate[0, 0] = torch.tensor([0.0, -1.0, 10.0, -2.0])  # second of two: exp(-10) = 4.5e-5
    gates, _ = routers(torch.eye(16)[:1], 0)
    kept = torch.tensor([10.0, 0.0]).softmax(0)[0].item()
    assert kept < 1
    assert gates[0].tolist() == [0, 0, kept, 0]


def test_noise_has_the_spread_of_equation_3(routers, monkeypatch):
    """logits + N(0,1) * (softplus(u @ w_noise) + 0.1), seen with a known draw."""
    routers.train()
    torch.nn.init.normal_(routers.noise)
    u, draw = torch.randn(20, 16), torch.randn(20, EXPERTS)
    monkeypatch.setattr(torch, "randn_like", lambda _: draw)
    gates, imbalance = routers(u, 1)
    noisy = u @ routers.gate[1] + draw * ((u @ routers.noise[1]).exp().log1p() + 0.1)
    assert torch.equal(gates.argmax(-1), noisy.argmax(-1))
    best = noisy.sort(-1, descending=True).values[:, :2].softmax(-1)
    torch.testing.assert_close(gates.max(-1).values, best[:, 0])
    assert imbalance > 0


def test_balance_loss_is_zero_for_equal_use_only():
    assert squared_variation(torch.full((4,), 3.0)) == 0
    assert squared_variation(torch.tensor([4.0, 0, 0, 0])).item() == pytest.approx(4.0)


def test_balance_loss_is_higher_for_a_router_that_prefers_two_adapters(routers):
    routers.train()
    u = torch.ones(400, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        routers.gate.zero_()
        fair = routers(u, 0)[1]
        routers.gate[0, :, :2] = 1.0
        unfair = routers(u, 0)[1]
    assert fair < 0.05
    assert unfair > 1


def test_adapters_are_mixed_in_log_space():
    torch.manual_seed(0)
    bank, u, gates = AdapterBank(16, EXPERTS), torch.randn(6, 16), torch.rand(6, EXPERTS)
    gates[:, 1] = 0
    with torch.no_grad():
        got = bank(u, gates)
        for token in range(6):
            outputs = [adapter(u[token]).tolist() for adapter in bank.adapters]
            for channel in range(16):
                total = sum(gates[token, n].item() * math.exp(outputs[n][channel]) for n in range(EXPERTS))
                assert got[token, channel].item() == pytest.approx(math.log(total), abs=1e-5)


def test_an_exact_zero_in_the_log_becomes_float64s_eps():
    bank = AdapterBank(16, EXPERTS)
    u = torch.randn(2, 16, requires_grad=True)
    mixed = bank(u, torch.zeros(2, EXPERTS))
    assert mixed.unique().tolist() == pytest.approx([math.log(2.0**-52)])
    mixed.sum().backward()
    assert u.grad.isfinite().all()


def test_restandardizing_gives_each_image_its_former_mean_and_std():
    torch.manual_seed(0)
    before = torch.randn(2, 5, 6, 8) * torch.tensor([3.0, 0.2]).view(2, 1, 1, 1) + 7
    after = restandardize(torch.randn(2, 5, 6, 8) * 9 - 4, before)
    for image, expected in zip(after, before, strict=True):
        assert image.mean().item() == pytest.approx(expected.mean().item(), abs=1e-5)
        assert image.std().item() == pytest.approx(expected.std().item(), rel=1e-5)


def test_restandardizing_undoes_any_gain_and_offset():
    tokens = torch.randn(1, 5, 6, 8)
    torch.testing.assert_close(restandardize(tokens * 3 + 2, tokens), tokens, rtol=1e-4, atol=1e-5)
