"""Learning from a fusion rule: the distances, and runs of a very small model that weighs its sources."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tcmoa.config
import tcmoa.initial_model
from micro_model import MICRO, MICRO_WEIGHTS, frames, scrambled
from tcmoa import Sizes, load_weights
from tcmoa.config import read_config
from tcmoa.model import to_luma
from tcmoa.teachers import TEACHER_TERMS, picture_distance, teacher_terms
from tcmoa.trainer import Trainer
from tcmoa_calibration.baselines import TEACHERS
from tcmoa_runtime.cli import run as command
from tcmoa_runtime.errors import InputError
from training_runs import assert_same, configured, read_checkpoint, train

SMALL = Sizes(64, 2, 2, 64, 2, 2, mlp_ratio=2, window=4, output="source-weights")

CONFIG = """
preset = "nano"
start = "random"
out = "run"
rounds = 6
warmup_rounds = 2
phases = [{ until = 1.0, crop = 64, batch = 2 }]
tones = 0.5
exchanges = 0.5
twins = 0.5
steering = 0.3
lr = 2e-3
clip = 20.0
ema = 0.5
checkpoint_every = 100
[teachers]
vif = "activity"
mef = "exposure-local"
mff = "focus"
[losses.vif]
prompts = 0.3
[pairs]
vif = "vif"
mef = "mef"
mff = "mff"
"""


@pytest.fixture(scope="module", autouse=True)
def small_nano():
    """`nano` is a model of the same kind that trains several rounds a second."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tcmoa.initial_model, tcmoa.config):
            patch.setattr(module, "PRESETS", {"nano": SMALL, "tiny": MICRO})
        yield


def images(count=2, size=(64, 64)):
    """Return RGB images [1, 3, H, W] in 0..1."""
    return [torch.from_numpy(f)[None].permute(0, 3, 1, 2).float() / 255 for f in frames(*size, count)]


def test_the_distance_counts_levels_gradients_and_means():
    a, b = (to_luma(image) for image in images())
    assert picture_distance(a, a) == 0
    # A constant error has no gradients; its mean counts a second time.
    assert picture_distance(a + 0.1, a).item() == pytest.approx(0.2, rel=1e-4)
    # One that alternates has no mean over 8x8 pixels.
    stripes = 0.1 * torch.tensor([1.0, -1.0]).repeat(32).expand(1, 1, 64, 64)
    assert picture_distance(a + stripes, a).item() == pytest.approx(0.1, rel=1e-4)
    # Of a ramp, one of two directions has a gradient.
    ramp = 0.01 * torch.arange(64.0).expand(1, 1, 64, 64)
    error = (ramp.mean() + F.avg_pool2d(ramp, 8).mean()).item()
    assert picture_distance(a + ramp, a).item() == pytest.approx(error + 8 * 0.01 / 2, rel=1e-4)
    assert picture_distance(a, b) == picture_distance(b, a) > 0.05


def test_the_terms_of_a_model_that_weighs_the_sources():
    model = scrambled(MICRO_WEIGHTS)
    x, y = images()
    target = to_luma(y)
    with torch.no_grad():
        output = model(x, y, "vif")
        terms = teacher_terms(TEACHER_TERMS, output, target, model.sizes)
    assert list(terms) == ["teacher", "teacher_prediction"]
    assert terms["teacher"].item() == pytest.approx(
        10 * picture_distance(output.image[:, :1], target).item(), rel=1e-4
    )
    std, mean = (np.array(v)[:, None, None] for v in ([0.229, 0.224, 0.225], [0.485, 0.456, 0.406]))
    predicted = np.tensordot([0.299, 0.587, 0.114], output.decoded[0].numpy() * std + mean, 1)
    half = torch.from_numpy(predicted).float()[None, None]
    expected = 3 * picture_distance(F.avg_pool2d(half, 2), F.avg_pool2d(target, 2))
    assert terms["teacher_prediction"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_prediction_of_a_model_that_shows_its_image_is_the_result():
    model = scrambled(MICRO)
    x, y = images(size=(112, 112))
    with torch.no_grad():
        output = model(x, y, "mef")
        terms = teacher_terms({"teacher": 1.0, "teacher_prediction": 2.0}, output, to_luma(x), model.sizes)
    assert terms["teacher_prediction"] == 2 * terms["teacher"] > 0
    assert terms["teacher"] == picture_distance(to_luma(output.image), to_luma(x))


@pytest.fixture(scope="module")
def finished(small_nano, pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("taught") / "finished"
    train(pairs, out, CONFIG, teachers=TEACHERS)
    return out


def losses(out, name, task):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["losses"][task][name] for line in lines]


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_a_few_rounds_bring_the_model_nearer_to_its_teacher(pairs, finished, task):
    """On the same crops, before and after."""
    config = read_config(configured(pairs, "before", CONFIG))
    trainer = Trainer(config, teachers=TEACHERS)
    after = load_weights(finished / "weights.safetensors")
    distances = []
    for model in (trainer.model.eval(), after.eval()):
        total = 0.0
        for step in range(4):
            x, y, target = trainer.samplers[task].batch(step, 64, 1)
            x, y = (to_luma(source).expand(-1, 3, -1, -1) for source in (x, y))
            with torch.no_grad():
                terms = teacher_terms(TEACHER_TERMS, model(x, y, task), target, model.sizes)
            total += terms["teacher_prediction"].item()
        distances.append(total)
    assert distances[1] < 0.92 * distances[0], distances


def test_the_log_names_the_distances_and_the_regularizer(finished):
    line = json.loads((finished / "log.jsonl").read_text().splitlines()[0])
    for terms in line["losses"].values():
        assert list(terms) == [
            "total",
            "teacher",
            "teacher_prediction",
            "flicker",
            "pumping",
            "prompts",
            "balance",
        ]
        assert terms["total"] == pytest.approx(sum(list(terms.values())[1:]), rel=1e-4)
        assert terms["prompts"] > 0
        assert terms["flicker"] >= 0
    assert any(value > 0 for task in ("vif", "mef", "mff") for value in losses(finished, "flicker", task))


def test_a_resumed_run_equals_an_uninterrupted_one(pairs, finished, tmp_path):
    out = tmp_path / "halves"
    train(pairs, out, CONFIG, rounds=4, teachers=TEACHERS)
    torch.manual_seed(1234)
    train(pairs, out, CONFIG, resume=True, teachers=TEACHERS)
    assert_same(read_checkpoint(out), read_checkpoint(finished))


def test_a_run_does_not_resume_with_another_teacher(pairs, finished):
    other = CONFIG.replace('vif = "activity"', 'vif = "exposure"')
    with pytest.raises(
        InputError, match=r"made with teachers = .*'vif': 'activity'.*; expected .*'vif': 'exposure'"
    ):
        train(pairs, finished, other, resume=True, teachers=TEACHERS)


def test_a_model_that_weighs_the_sources_trains_without_a_teacher(pairs, tmp_path):
    text = CONFIG.replace('vif = "activity"\nmef = "exposure-local"\nmff = "focus"\n', "")
    train(pairs, tmp_path / "run", text.replace("rounds = 6", "rounds = 2"))
    for task, name in (("vif", "gradient_max"), ("mef", "mef_ssim"), ("mff", "pixel_sharper")):
        assert np.isfinite(losses(tmp_path / "run", name, task)).all()


def test_the_command_line_knows_the_teachers(pairs, tmp_path, capsys):
    config = configured(pairs, "command", CONFIG)
    assert command(["train", str(config), "--out", str(tmp_path / "run"), "--rounds", "1"]) == 0
    assert (tmp_path / "run" / "weights.safetensors").is_file()
    config = configured(pairs, "command", CONFIG.replace('"focus"', '"sharpest"'))
    assert command(["train", str(config), "--out", str(tmp_path / "other")]) == 2
    line = "error: [teachers] of mff: 'sharpest'; expected one of activity, exposure, exposure-local, focus\n"
    assert capsys.readouterr().err.endswith(line)
    assert not (tmp_path / "other").exists()
