"""Training runs of a very small model: exact resuming, averaging, trained parameters, refused settings."""

import json
import re
import signal
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import tcmoa.config
import tcmoa.trainer
from raised_signals import raise_handled
from tcmoa import load_weights
from tcmoa.config import Phase, TrainConfig
from tcmoa.ema import ExponentialMovingAverage
from tcmoa.initial_model import build_model
from tcmoa.losses import WARMUP
from tcmoa.trainable import parameter_groups
from tcmoa.trainer import Trainer, learning_rate
from tcmoa.weights import to_published
from tcmoa_runtime.errors import InputError
from training_runs import CONFIG, SMALL, assert_same, read_checkpoint, train

BACKBONE = (
    *("patch_embed.", "cls_token", "pos_embed", "encoder.blocks.", "norm."),
    *("decoder_embed.", "decoder_pos_embed", "decoder.blocks.", "decoder_norm.", "decoder_pred."),
)
"""Prefixes of the names of parameters in an MAE checkpoint."""

SAMPLES = """
[samples]
vif = "vif"
mff = "mff"
"""


pytestmark = pytest.mark.usefixtures("small_presets")


@pytest.fixture(scope="module")
def finished(small_presets, pairs, tmp_path_factory):
    """The folder of an uninterrupted run with samples."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(pairs, out, CONFIG + SAMPLES)
    return out


def refusal(**options):
    """Return the one-line message with which a run is refused."""
    with pytest.raises(InputError) as caught:
        train(**options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(pairs, finished, tmp_path):
    out = tmp_path / "halves"
    train(pairs, out, rounds=3)
    assert read_checkpoint(out)["round"] == 3
    torch.manual_seed(1234)  # the resumed process does not know the random state of the first
    _, weights = train(pairs, out, resume=True)
    whole, halves = read_checkpoint(finished), read_checkpoint(out)
    assert halves["optimizer"]["state"]
    assert_same(halves, whole)
    assert to_published_values(weights) == to_published_values(finished / "weights.safetensors")


def to_published_values(path):
    return {key: value.numpy().tobytes() for key, value in to_published(load_weights(path)).items()}


def test_a_task_may_take_several_steps_per_round_each_with_its_own_crop(pairs, tmp_path, monkeypatch):
    seen, totals = [], defaultdict(list)
    step = tcmoa.trainer.Trainer._step

    def kept(self, task, x, y, target):
        seen.append((task, x.numpy().tobytes(), torch.initial_seed()))
        terms = step(self, task, x, y, target)
        totals[task].append(terms["total"])
        return terms

    monkeypatch.setattr(tcmoa.trainer.Trainer, "_step", kept)
    config = CONFIG.replace("rounds = 6", "rounds = 2\nsteps = { vif = 3 }")
    assert config != CONFIG
    train(pairs, tmp_path / "whole", config)
    assert [task for task, _, _ in seen] == ["vif", "vif", "vif", "mef", "mff"] * 2
    assert len({crop for task, crop, _ in seen if task == "vif"}) == 6
    assert len({seed for _, _, seed in seen}) == len(seen)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    means = [float(np.mean(totals["vif"][first : first + 3])) for first in (0, 3)]
    assert [line["losses"]["vif"]["total"] for line in log] == pytest.approx(means)
    train(pairs, tmp_path / "halves", config, rounds=1)
    train(pairs, tmp_path / "halves", config, resume=True)
    assert_same(read_checkpoint(tmp_path / "halves"), read_checkpoint(tmp_path / "whole"))


def test_an_interrupted_run_is_saved_and_resumes_exactly(pairs, finished, tmp_path):
    def interrupt(line):
        if line.startswith("round     3/6"):
            raise KeyboardInterrupt

    out = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        train(pairs, out, on_message=interrupt)
    assert read_checkpoint(out)["round"] == 3
    assert load_weights(out / "weights.safetensors").sizes == SMALL
    train(pairs, out, resume=True)
    assert_same(read_checkpoint(out), read_checkpoint(finished))


def kill_in_step(monkeypatch, number, count, signals):
    """Send `signals` to this process in step `count` of the run, in the middle of a round."""
    steps = []
    step = tcmoa.trainer.Trainer._step

    def counted(self, *arguments):
        steps.append(1)
        if len(steps) == count:
            for _ in range(signals):
                raise_handled(number)
        return step(self, *arguments)

    monkeypatch.setattr(tcmoa.trainer.Trainer, "_step", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_after_the_round_and_resuming_is_exact(
    pairs, finished, tmp_path, monkeypatch, number
):
    out = tmp_path / "signalled"
    messages = []
    step = tcmoa.trainer.Trainer._step
    kill_in_step(monkeypatch, number, 8, 1)  # the second step of round 3
    with pytest.raises(KeyboardInterrupt):
        train(pairs, out, on_message=messages.append)
    assert any("stopping after this round" in line for line in messages)
    assert read_checkpoint(out)["round"] == 3
    monkeypatch.setattr(tcmoa.trainer.Trainer, "_step", step)
    train(pairs, out, resume=True)
    assert_same(read_checkpoint(out), read_checkpoint(finished))


def test_a_second_signal_ends_at_once_and_saves_no_partial_round(pairs, tmp_path, monkeypatch):
    out = tmp_path / "twice"
    kill_in_step(monkeypatch, signal.SIGINT, 8, 2)
    with pytest.raises(KeyboardInterrupt):
        train(pairs, out)
    assert read_checkpoint(out)["round"] == 2  # the last one that was due


def test_resuming_a_finished_run_changes_nothing(pairs, finished, tmp_path):
    out = tmp_path / "again"
    out.mkdir()
    (out / "checkpoint.pt").write_bytes((finished / "checkpoint.pt").read_bytes())
    train(pairs, out, resume=True)
    assert_same(read_checkpoint(out), read_checkpoint(finished))


def test_a_run_of_zero_rounds_writes_the_initial_weights(pairs, tmp_path):
    _, weights = train(pairs, tmp_path / "start", rounds=0)
    start = to_published(load_weights(weights))
    assert_same(start, to_published(build_model(TrainConfig(pairs={}, start="random"))))


def test_the_written_weights_are_the_averaged_ones(finished):
    state = read_checkpoint(finished)
    written = load_weights(finished / "weights.safetensors").state_dict()
    for name, value in state["average"].items():
        assert torch.equal(written[name], value), name
    apart = [name for name, value in state["average"].items() if not torch.equal(state["model"][name], value)]
    assert len(apart) > 0.9 * len(state["average"])


def test_the_average_is_applied_inside_a_with_block_only():
    model = nn.Linear(3, 2)
    start = model.weight.detach().clone()
    average = ExponentialMovingAverage(model, 0.75)
    with torch.no_grad():
        model.weight += 1
        average.update(model)
        average.update(model)
    torch.testing.assert_close(average.values["weight"], start + (1 - 0.75**2))
    own = model.weight.detach().clone()
    with average.applied(model):
        assert torch.equal(model.weight, average.values["weight"])
    assert torch.equal(model.weight, own)
    with pytest.raises(KeyboardInterrupt), average.applied(model):
        raise KeyboardInterrupt
    assert torch.equal(model.weight, own)


def test_the_log_holds_losses_and_speed(finished):
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert line["images_per_s"] > 0
        assert list(line["losses"]) == ["vif", "mef", "mff"]
        for terms in line["losses"].values():
            total = sum(value for name, value in terms.items() if name != "total")
            assert terms["total"] == pytest.approx(total, rel=1e-4)
            assert {"prompts", "balance"} < terms.keys()
    # Two rounds of averaging know no gradients.
    assert ["gradient_max" in line["losses"]["vif"] for line in lines] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]


def test_contact_sheets_show_each_sample_pair(finished):
    assert sorted(path.name for path in finished.glob("samples-*")) == [
        "samples-000004.jpg",
        "samples-000006.jpg",
    ]
    image = cv2.imread(str(finished / "samples-000006.jpg"))
    assert image.shape == (2 * 112, 5 * 336, 3)
    shown = image[:, : 3 * 112].reshape(2, 112, 3, 112, 3)
    assert (shown.std((1, 3)) > 5).any(-1).all()  # none of x, y and fused is blank


def test_no_partial_files_remain(finished):
    expected = {
        "checkpoint.pt",
        "weights.safetensors",
        "log.jsonl",
        "samples-000004.jpg",
        "samples-000006.jpg",
    }
    assert {path.name for path in finished.iterdir()} == expected


def test_an_existing_run_is_not_overwritten(pairs, finished):
    before = (finished / "checkpoint.pt").read_bytes()
    assert "already contains a run. Continue it with resume=True" in refusal(pairs=pairs, out=finished)
    assert (finished / "checkpoint.pt").read_bytes() == before


def test_there_must_be_a_run_to_resume(pairs, tmp_path):
    message = refusal(pairs=pairs, out=tmp_path / "none", resume=True)
    assert "no checkpoint.pt to resume. Start the run without resume" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr = 1e-3", "lr = 2e-3", "made with lr = 0.001; expected 0.002"),
        ("rounds = 6", "rounds = 9", "made with rounds = 6; expected 9"),
        ("batch = 1", "batch = 2", "made with phases = "),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(pairs, finished, old, new, message):
    assert message in refusal(pairs=pairs, out=finished, text=CONFIG.replace(old, new), resume=True)


def test_a_run_may_be_resumed_with_other_checkpoint_intervals(pairs, tmp_path):
    out = tmp_path / "saving"
    train(pairs, out, rounds=1)
    train(pairs, out, CONFIG.replace("every = 2", "every = 3"), rounds=2, resume=True)
    assert read_checkpoint(out)["round"] == 2


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1000], lambda c: c[:100], lambda _: b"", lambda _: b"no pickle\n" * 9]
)
def test_a_damaged_checkpoint_is_refused(pairs, finished, tmp_path, damage):
    out = tmp_path / "damaged"
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(damage((finished / "checkpoint.pt").read_bytes()))
    message = refusal(pairs=pairs, out=out, resume=True)
    assert message.startswith(f"{out / 'checkpoint.pt'}: cannot be resumed")


def test_a_checkpoint_of_something_else_is_refused(pairs, tmp_path):
    out = tmp_path / "other"
    out.mkdir()
    for content in ({"model": {}}, [1, 2], {"config": "7"}):
        torch.save(content, out / "checkpoint.pt")
        assert "cannot be resumed" in refusal(pairs=pairs, out=out, resume=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("crop = 112", "crop = 100", "'phases': crop is 100; expected a multiple of 112"),
        (
            'mff = "mff"\n',
            'mff = "mff"\n[sizes]\nwindow = 7\n',
            "'phases': crop is 56; expected a multiple of 16, as mff compares patches",
        ),
        (
            'mff = "mff"\n',
            'mff = "mff"\n[sizes]\npatch_size = 4\n[losses.vif]\nseams = 1.0\n',
            "'seams' in [losses]: windows of 28 pixels, shifted by 14; expected multiples of 4",
        ),
        ('"random"', '"fusion"', "start 'fusion': does not fit preset 'tiny'"),
        (
            'mff = "mff"\n',
            'mff = "mff"\n[teachers]\nvif = "activity"\n',
            "[teachers] of vif: 'activity'; expected no teacher, as none were passed. Pass teachers.",
        ),
        ('"random"', '"absent.pth"', "absent.pth: no such weights file"),
        ('vif = "vif"', 'vif = "nowhere"', "nowhere: no such folder of images"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(pairs, tmp_path, old, new, message):
    out = tmp_path / "never"
    text = CONFIG.replace(old, new)
    if "window = 7" in new:
        text = text.replace("crop = 112", "crop = 56")
    assert message in refusal(pairs=pairs, out=out, text=text)
    assert not out.exists()


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_finite_weights(pairs, tmp_path, monkeypatch):
    out = tmp_path / "diverged"
    infinite = {"pixel": torch.tensor(torch.inf, requires_grad=True)}
    terms = tcmoa.trainer.weighted_terms

    def diverging(weights, *images, **borders):
        warming_up = any(weights is known for known in WARMUP.values())
        return terms(weights, *images, **borders) if warming_up else dict(infinite)

    monkeypatch.setattr(tcmoa.trainer, "weighted_terms", diverging)
    with pytest.raises(FloatingPointError, match="loss of vif is inf in round 2"):
        train(pairs, out)
    assert all(value.isfinite().all() for value in read_checkpoint(out)["model"].values())


def test_the_regularizer_has_the_published_weight_or_that_of_the_configuration(pairs, tmp_path):
    still = CONFIG.replace("lr = 1e-3", "lr = 1e-9")

    def regularizer_values(name, text="", still=still):
        out = tmp_path / name
        train(pairs, out, f"{still}\n{text}", rounds=1)
        losses = json.loads((out / "log.jsonl").read_text())["losses"]
        return [losses[task]["prompts"] for task in ("vif", "mef", "mff")]

    published = regularizer_values("published")
    text = "[losses.vif]\nprompts = 0.25\n[losses.mff]\nssim_sharper = 1.0\n"
    changed = regularizer_values("changed", text)  # in an averaging round, too
    later = regularizer_values("later", text, still.replace("averaging_rounds = 2", ""))
    assert published[0] > 0
    for run in (changed, later):
        assert run[0] == pytest.approx(published[0] / 4)
        assert run[1:] == pytest.approx(published[1:], rel=1e-3)


@pytest.mark.parametrize(("window", "crop"), [(10, 80), (6, 48)])
def test_seams_are_measured_at_the_windows_of_the_model(pairs, tmp_path, monkeypatch, window, crop):
    terms, seen = tcmoa.trainer.weighted_terms, []

    def watched(weights, *images, **borders):
        seen.append(borders)
        return terms(weights, *images, **borders)

    monkeypatch.setattr(tcmoa.trainer, "weighted_terms", watched)
    text = re.sub(r"crop = \d+", f"crop = {crop}", CONFIG)
    train(pairs, tmp_path / "run", f"{text}\n[sizes]\nwindow = {window}\n", rounds=1)
    assert seen == [{"window": 8 * window, "shift": 4 * window}] * 3


def test_a_frozen_backbone_is_everything_in_an_mae_checkpoint(pairs, tmp_path):
    frozen = build_model(TrainConfig(pairs={}, start="random", freeze_backbone=True))
    state = {name: parameter.detach().clone() for name, parameter in frozen.named_parameters()}
    backbone = {name for name in state if name.startswith(BACKBONE)}
    assert {name for name, parameter in frozen.named_parameters() if not parameter.requires_grad} == backbone

    out = tmp_path / "frozen"
    train(pairs, out, f"freeze_backbone = true\n{CONFIG}", rounds=2)
    trained = read_checkpoint(out)["model"]
    changed = {name for name, value in state.items() if not torch.equal(trained[name], value)}
    assert changed
    assert not changed & backbone
    assert read_checkpoint(out)["average"].keys() == state.keys() - backbone


def test_without_freezing_all_but_the_position_tables_is_trained():
    model = build_model(TrainConfig(pairs={}, start="random"))
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert fixed == {"cls_token", "pos_embed", "decoder_pos_embed"}


def test_weights_of_a_run_can_start_another(finished):
    config = TrainConfig(pairs={}, start=str(finished / "weights.safetensors"))
    assert_same(
        dict(build_model(config).state_dict()),
        dict(load_weights(finished / "weights.safetensors").state_dict()),
    )


def test_biases_norms_and_mixes_have_no_weight_decay_and_adapters_have_their_own_rate():
    model = build_model(TrainConfig(pairs={}, start="random"))
    groups = parameter_groups(model, TrainConfig(pairs={}, weight_decay=0.1, moa_lr_factor=3.0))
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    for name, decay, factor in (
        ("encoder.blocks.0.attn.qkv.weight", 0.1, 1.0),
        ("encoder.blocks.0.attn.qkv.bias", 0.0, 1.0),
        ("decoder_norm.weight", 0.0, 1.0),
        ("encoder.moas.0.fusion.conv1.weight", 0.1, 3.0),
        ("decoder.moas.0.mix", 0.0, 3.0),
        ("decoder.biases.0.table", 0.1, 3.0),
        ("encoder.moas.0.prompts.routers.gate", 0.1, 3.0),
    ):
        group = of[id(model.get_parameter(name))]
        assert (group["weight_decay"], group["factor"]) == (decay, factor), name


def test_prompt_parameters_may_have_their_own_rate():
    model = build_model(TrainConfig(pairs={}, start="random"))
    groups = parameter_groups(model, TrainConfig(pairs={}, moa_lr_factor=3.0, prompt_lr_factor=0.5))
    factors = {id(parameter): group["factor"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(factors)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            adapted = 3.0 if ".moas." in name or ".biases." in name else 1.0
            assert factors[id(parameter)] == (0.5 if ".prompts." in name else adapted), name


def test_the_learning_rate_warms_up_peaks_and_falls_to_its_minimum():
    config = TrainConfig(pairs={}, rounds=1000, warmup_rounds=10, lr=1e-3, min_lr=1e-5)
    rates = [learning_rate(config, round_) for round_ in range(1000)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == 1e-3
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[505] == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-5, rel=1e-3)
    assert learning_rate(config, 1000) == pytest.approx(1e-5)
    assert learning_rate(replace(config, warmup_rounds=0), 0) == 1e-3


def test_phases_follow_each_other(pairs):
    config = TrainConfig(
        pairs={"vif": pairs / "vif"},
        start="random",
        rounds=10,
        phases=(Phase(0.3, 112, 2), Phase(1.0, 224, 1)),
    )
    training, crops = Trainer(config), []
    for training.round in range(10):
        crops.append(training.phase().crop)
    assert crops == [112] * 3 + [224] * 7


def test_a_few_rounds_lower_the_loss(pairs, tmp_path):
    text = CONFIG.replace("rounds = 6", "rounds = 20").replace(
        "averaging_rounds = 2", "averaging_rounds = 20"
    )
    out = tmp_path / "learns"
    train(pairs, out, f'tasks = ["vif"]\n{text}')
    totals = [
        json.loads(line)["losses"]["vif"]["total"] for line in (out / "log.jsonl").read_text().splitlines()
    ]
    assert np.mean(totals[-4:]) < 0.8 * np.mean(totals[:4])


def test_pairs_of_some_tasks_are_enough(pairs, tmp_path):
    text = CONFIG.replace('vif = "vif"\n', "").replace('mef = "mef"\n', "")
    train(pairs, tmp_path / "one", text, rounds=1)
    (line,) = (tmp_path / "one" / "log.jsonl").read_text().splitlines()
    assert list(json.loads(line)["losses"]) == ["mff"]


def test_the_initial_model_depends_on_the_seed_only():
    def start(seed):
        torch.rand(3)
        return build_model(TrainConfig(pairs={}, start="random", seed=seed)).state_dict()

    assert_same(dict(start(1)), dict(start(1)))
    name = "patch_embed.proj.weight"
    assert not torch.equal(start(1)[name], start(2)[name])
