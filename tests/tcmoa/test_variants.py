"""The shipped configurations, files that extend others, and the keys with which a variant differs from a preset."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tcmoa
from tcmoa import PRESETS, TCMoA
from tcmoa.config import read_config
from tcmoa.dataset_layouts import PairSource
from tcmoa.trainable import parameter_counts, set_trainable
from tcmoa_runtime.errors import InputError

CONFIGS = Path(tcmoa.__file__).parent / "configs"
EVERY = sorted(CONFIGS.rglob("*.toml"))
VARIANTS = {path.stem: path for path in (CONFIGS / "variants").glob("*.toml")}


def on_meta(config):
    """The configured model without its memory, gradients set."""
    with torch.device("meta"):
        model = TCMoA(replace(PRESETS[config.preset], **config.size_changes))
    set_trainable(model, freeze_backbone=config.freeze_backbone)
    return model


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_a_shipped_configuration_is_read_and_its_model_built(path):
    config = read_config(path)
    model = on_meta(config)
    assert parameter_counts(model).trainable > 0
    assert all(phase.crop % model.window_pixels == 0 for phase in config.phases)
    outs = [read_config(other).out.resolve() for other in EVERY if other != path]
    assert config.out.resolve() not in outs


@pytest.mark.parametrize(
    ("preset", "total", "adapted", "embeddings"),
    [("base", 115_772_525, 3_865_197, 19_968), ("large", 340_886_920, 11_345_544, 43_008)],
)
def test_the_papers_runs_train_everything_outside_the_mae(preset, total, adapted, embeddings):
    """3.865 M of 115.77 M, 11.35 M of 340.89 M; and the source embeddings, which no count of the authors holds."""
    config = read_config(CONFIGS / f"{preset}.toml")
    counts = parameter_counts(on_meta(config))
    assert (counts.total, counts.adapted, counts.source_embeddings) == (total, adapted, embeddings)
    assert counts.trainable == adapted + embeddings
    assert str(counts) == (
        f"{total:,} parameters, {adapted:,} of them outside the backbone; {embeddings:,} more in source "
        f"embeddings; {adapted + embeddings:,} are trained"
    )
    assert config.start.startswith("mae:")


def test_the_papers_schedule():
    """20 epochs of LLVIP's 12025 pairs at 3 a step, 2 of them warm-up."""
    config = read_config(CONFIGS / "large.toml")
    epoch = -(-12025 // 3)
    assert (config.rounds, config.warmup_rounds, config.averaging_rounds) == (
        20 * epoch,
        2 * epoch,
        2 * epoch,
    )
    (phase,) = config.phases
    assert (phase.crop, phase.batch) == (448, 3)
    assert (config.lr, config.min_lr, config.weight_decay, config.betas) == (1.5e-4, 1e-5, 0.05, (0.9, 0.95))
    assert (config.ema, config.balance, config.synthetic, config.losses) == (0.99, 1e-3, 0.0, {})
    layouts = [[source.layout for source in config.pairs[task]] for task in ("vif", "mef", "mff")]
    assert layouts == [["llvip"], ["sice"], ["realmff", "mfi-whu"]]


def test_variants_are_the_papers():
    sizes = {name: replace(PRESETS[c.preset], **c.size_changes) for name, c in read_variants().items()}
    large, base = PRESETS["large"], PRESETS["base"]
    assert sizes == {
        "single-adapter": replace(large, experts=1, top_k=1),
        "single-task": replace(large, experts=1, top_k=1),
        "experts-2": replace(large, experts=2),
        "experts-6": replace(large, experts=6),
        "tau-2": replace(large, tau=2),
        "tau-8": replace(large, tau=8),
        "frozen-base": replace(base, adaptation="frozen"),
        "frozen-large": replace(large, adaptation="frozen"),
        "adaptformer-base": replace(base, adaptation="adaptformer"),
        "adaptformer-large": replace(large, adaptation="adaptformer"),
    }
    assert list(read_variants()["single-task"].trained_pairs) == ["vif"]


def read_variants():
    return {name: read_config(path) for name, path in VARIANTS.items()}


def test_counts_of_the_baselines():
    """Table 6 prints 111.65 M for "Frozen": MAE without position tables and class token, so nothing is added to it."""
    variants = read_variants()
    model = on_meta(variants["frozen-base"])
    counts = parameter_counts(model)
    unused = model.pos_embed.numel() + model.decoder_pos_embed.numel() + model.cls_token.numel()
    assert round((counts.backbone - unused) / 1e6, 2) == 111.65
    assert counts.trainable == 512 * 768 + 768
    adapters = 12 * (2 * 768 * 64 + 768 + 64) + 8 * (2 * 512 * 64 + 512 + 64)
    assert parameter_counts(on_meta(variants["adaptformer-base"])).trainable == adapters + 512 * 768 + 768


def test_tau_sets_the_number_of_tcmoas():
    variants = read_variants()
    numbers = {name: on_meta(variants[name]).prompt_count for name in ("tau-2", "experts-6", "tau-8")}
    assert numbers == {"tau-2": 16, "experts-6": 8, "tau-8": 4}


def written(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def parent(tmp_path):
    return written(
        tmp_path,
        "parent.toml",
        """
        start = "mae:mae.pth"
        lr = 1e-3
        rounds = 50
        phases = [{ until = 0.5, crop = 112, batch = 4 }, { until = 1.0, crop = 224, batch = 1 }]
        [sizes]
        experts = 2
        tau = 2
        [pairs]
        vif = "vif"
        mef = { layout = "sice", path = "SICE" }
        """,
    )


def test_a_file_overrides_the_file_it_extends(tmp_path, parent):
    child = written(
        tmp_path,
        "deeper/child.toml",
        """
        extends = "../parent.toml"
        lr = 2e-3
        phases = [{ until = 1.0, crop = 448, batch = 3 }]
        [sizes]
        experts = 6
        [pairs]
        vif = "own"
        """,
    )
    one, other = read_config(parent), read_config(child)
    assert (other.lr, other.rounds, len(other.phases)) == (2e-3, 50, 1)
    assert (one.sizes, other.sizes) == ({"experts": 2, "tau": 2}, {"experts": 6, "tau": 2})
    # A path starts where it is written.
    assert other.pairs["vif"] == tmp_path / "deeper" / "own"
    assert [source.path.resolve() for source in other.pairs["mef"]] == [tmp_path / "SICE"]
    assert Path(other.start.removeprefix("mae:")).resolve() == tmp_path / "mae.pth"
    assert one.start == f"mae:{tmp_path / 'mae.pth'}"


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_config(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_files_that_extend_each_other_are_refused(tmp_path):
    a = written(tmp_path, "a.toml", 'extends = "b.toml"')
    b = written(tmp_path, "b.toml", 'extends = "a.toml"')
    assert refusal(a) == f"{b}: 'extends' forms a cycle through {a}"
    itself = written(tmp_path, "c.toml", 'extends = "c.toml"')
    assert "'extends' forms a cycle through" in refusal(itself)


def test_an_error_in_the_extended_file_names_that_file(tmp_path, parent):
    child = written(tmp_path, "child.toml", 'extends = "parent.toml"')
    parent.write_text("rounds = true")
    assert refusal(child).startswith(f"{parent}: 'rounds' is True")
    parent.unlink()
    assert refusal(child) == f"{parent}: cannot be read: No such file or directory"
    assert "'extends' is 3; expected a value of type str" in refusal(
        written(tmp_path, "d.toml", "extends = 3")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizes = 3", "[sizes] is 3; expected a table of numbers"),
        (
            "sizes = { exprts = 2 }",
            "unknown key 'exprts' in [sizes]; expected one of decoder_depth, decoder_embed_dim",
        ),
        ('sizes = { output = "image" }', "unknown key 'output' in [sizes]; expected one of"),
        ("sizes = { experts = 2.5 }", "'sizes.experts' is 2.5; expected a value of type int"),
        ("tasks = []", "'tasks' is []"),
        ('tasks = "vif"', "'tasks' is 'vif'; expected a list of some of vif, mef, mff"),
        ('tasks = ["mff"]', "expected some of vif, mef, the tasks of [pairs]"),
        ('adaptation = "lora"', "'adaptation' is 'lora'; expected one of tc-moa, adaptformer, frozen"),
        ('adaptation = "frozen"', "'freeze_backbone' is False; expected true for this 'adaptation'"),
        ('amp = "fp8"', "'amp' is 'fp8'; expected one of none, bf16, fp16"),
        ('device = "tpu"', "'device' is 'tpu'; expected one of auto, cpu, cuda"),
        ("tensorboard = 1", "'tensorboard' is 1; expected a value of type bool"),
    ],
)
def test_a_wrong_key_of_a_variant_is_named(tmp_path, text, message):
    path = written(tmp_path, "run.toml", f'{text}\n[pairs]\nvif = "vif"\nmef = "mef"\n')
    assert message in refusal(path)


def test_only_the_listed_tasks_are_trained(tmp_path):
    path = written(
        tmp_path, "run.toml", 'tasks = ["mff", "vif"]\n[pairs]\nvif = "a"\nmef = "b"\nmff = ["c"]\n'
    )
    config = read_config(path)
    assert config.tasks == ("vif", "mff")
    assert config.trained_pairs == {"vif": tmp_path / "a", "mff": (PairSource(tmp_path / "c"),)}
