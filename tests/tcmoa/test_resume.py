"""Resuming: three and three rounds equal six for every kind of run; older checkpoints without newer settings resume."""

import json
import shutil

import pytest
import torch

from tcmoa.config import TrainConfig
from tcmoa.trainer import resumable
from tcmoa_runtime.errors import InputError
from training_runs import CONFIG, assert_same, read_checkpoint, train

pytestmark = pytest.mark.usefixtures("small_presets")

THREE_EXPERTS = CONFIG.replace("[pairs]", "[sizes]\nexperts = 3\n[pairs]")
OLD = {
    *(
        "preset",
        "start",
        "freeze_backbone",
        "train_for",
        "seed",
        "rounds",
        "warmup_rounds",
        "averaging_rounds",
    ),
    *(
        "phases",
        "synthetic",
        "lr",
        "min_lr",
        "moa_lr_factor",
        "weight_decay",
        "betas",
        "clip",
        "balance",
        "ema",
    ),
}
"""Settings that the first checkpoints hold."""


@pytest.mark.parametrize(
    "settings",
    [
        "freeze_backbone = true",
        'freeze_backbone = true\namp = "bf16"\ntasks = ["mff"]',
        'freeze_backbone = true\nadaptation = "adaptformer"',
    ],
    ids=["frozen backbone", "frozen, bf16, one task", "adaptformer"],
)
def test_six_rounds_equal_three_and_three_bit_for_bit(pairs, tmp_path, settings):
    """The halves meet after warm-up and averaging; test_mixed_precision.py does the same in 16 bits."""
    text = f"{settings}\n{THREE_EXPERTS}"
    train(pairs, tmp_path / "whole", text)
    train(pairs, tmp_path / "halves", text, rounds=3)
    torch.manual_seed(99)
    train(pairs, tmp_path / "halves", text, resume=True)
    whole, halves = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "halves")
    assert halves["round"] == 6
    assert halves["average"]
    assert_same(halves, whole)


@pytest.fixture(scope="module")
def old_run(small_presets, pairs, tmp_path_factory):
    """A run whose checkpoint lacks the newer settings; tests take copies of it."""
    out = tmp_path_factory.mktemp("runs") / "old"
    file, _ = train(pairs, out, rounds=3)
    state = read_checkpoint(out)
    stored = json.loads(state["config"])
    state["config"] = json.dumps({key: value for key, value in stored.items() if key in OLD})
    torch.save({k: v for k, v in state.items() if k not in ("processes", "loss_scale", "device")}, file)
    return out


@pytest.fixture
def old(old_run, tmp_path):
    """A copy of that run."""
    return shutil.copytree(old_run, tmp_path / "old")


def test_a_checkpoint_older_than_a_setting_resumes_with_its_default(pairs, old, tmp_path):
    assert resumable(TrainConfig(pairs={})).keys() > OLD
    train(pairs, old, resume=True)
    train(pairs, tmp_path / "whole")
    assert_same(read_checkpoint(old), read_checkpoint(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('amp = "bf16"', "made with amp = 'none'; expected 'bf16'"),
        ('tasks = ["vif"]', "made with tasks = []; expected ['vif']"),
        ("sizes = { experts = 2 }", "made with sizes = {}; expected {'experts': 2}"),
        ('adaptation = "frozen"\nfreeze_backbone = true', "made with freeze_backbone = False; expected True"),
        ("losses = { vif = { ssim = 1.0 } }", "made with losses = {}; expected {'vif': {'ssim': 1.0}}"),
    ],
)
def test_an_old_checkpoint_does_not_resume_with_another_value_of_that_setting(pairs, old, settings, message):
    with pytest.raises(InputError) as caught:
        train(pairs, old, f"{settings}\n{CONFIG}", resume=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_change_of_the_device_is_reported(pairs, old):
    state = read_checkpoint(old)
    torch.save({**state, "device": "cuda"}, old / "checkpoint.pt")
    messages = []
    train(pairs, old, f'device = "cpu"\n{CONFIG}', resume=True, rounds=4, on_message=messages.append)
    assert "the checkpoint was made on cuda and continues on cpu; rounding differs" in messages
