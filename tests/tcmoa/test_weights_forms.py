"""Every form of checkpoint that is in circulation gives the graph of the plain one, byte for byte."""

import argparse
import hashlib
import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from micro_model import MICRO, scrambled
from tcmoa import Sizes, TCMoA, load_weights, save_weights
from tcmoa.checkpoint_names import to_published
from tcmoa.config import TrainConfig
from tcmoa.trainer import Trainer
from tcmoa.weights import load_start
from tcmoa_export.network import build_graph
from tcmoa_export.spec import make_spec
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import ExportOptions

SMALL = Sizes(32, 2, 1, 32, 2, 1)
NAMED_FOR_TASK = "trained for one task, which the file does not name; expected one of vif, mef, mff"


GRAPHS = {}


def graph(model, task="vif"):
    """The bytes of the exported graph; exported once for models that are equal in all tensors and settings."""
    tensors = tuple(
        (name, str(value.dtype), tuple(value.shape), hashlib.sha256(value.numpy()).digest())
        for name, value in model.state_dict().items()
    )
    key = (task, model.sizes, model.upsample, model.as_published, tensors)
    if key not in GRAPHS:
        spec = make_spec(model, ExportOptions(task=task, size=(112, 112), with_prompt=True))
        GRAPHS[key] = build_graph(model, spec, "hash", "0").SerializeToString(deterministic=True)
    return GRAPHS[key]


def older_name(name):
    """A published name as in the authors' older files."""
    if "blocks_MoA" in name:
        name = name.replace("blocks_MoA", "blocks_SSF_rgb").replace(".MoA.", ".mlp.")
        name = name.replace("dimReduction", "SE_en_linear").replace("modal_shifts", "SSF_beta")
    if name.startswith("de_FusionLayer"):
        return name.replace("de_FusionLayer", "de_projAdapter")
    return name.replace("FusionLayer", "en_projAdapter")


def older(state):
    return {older_name(name): value for name, value in state.items()}


def stacked(state, shape):
    """Older names, with the source embeddings of each TC-MoA in one tensor [*shape, C]."""
    state = older(state)
    rows = {}
    for name in [name for name in state if "SSF_beta" in name]:
        prefix, _, row = name.rpartition(".")
        rows.setdefault(prefix, {})[int(row)] = state.pop(name)
    for prefix, vectors in rows.items():
        state[prefix] = torch.stack([vectors[row].flatten() for row in sorted(vectors)]).reshape(*shape, -1)
    return state


def prefixed(prefix):
    return lambda state: {prefix + name: value for name, value in state.items()}


def lightning(state):
    return {"state_dict": state, "epoch": 3, "global_step": 7, "hyper_parameters": {"lr": 1e-3}}


def mae_style(state):
    """As scripts in the style of MAE save: with their options."""
    return {"model": state, "epoch": 3, "args": argparse.Namespace(lr=1e-3, device=torch.device("cpu"))}


FORMS = {
    "published": lambda state: state,
    "model": lambda state: {"model": state},
    "state_dict": lightning,
    "model_state_dict": lambda state: {"model_state_dict": state},
    "nested": lambda state: {"state_dict": {"model": state}},
    "with options": mae_style,
    "module.": prefixed("module."),
    "_orig_mod.": prefixed("_orig_mod."),
    "module._orig_mod.": prefixed("module._orig_mod."),
    "_orig_mod.module.module.": prefixed("_orig_mod.module.module."),
    "prefix inside": lambda state: {
        k.replace("blocks.", "blocks._orig_mod.", 1): v for k, v in state.items()
    },
    "older": older,
    "older, wrapped and prefixed": lambda state: {"model": prefixed("module._orig_mod.")(older(state))},
    "older, embeddings [6, C]": lambda state: stacked(state, (6,)),
    "older, embeddings [3, 2, C]": lambda state: stacked(state, (3, 2)),
    "older, embeddings [1, 6, 1, C]": lambda state: stacked(state, (1, 6, 1)),
}


@pytest.fixture(scope="module")
def plain(golden):
    """The golden model's tensors, its model, and its graph."""
    model = load_weights(golden / "checkpoint.safetensors")
    return load_file(golden / "checkpoint.safetensors"), model, graph(model)


def load_silently(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_weights(path, **options)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_golden_checkpoint_gives_the_same_graph(tmp_path, plain, form):
    state, _, expected = plain
    torch.save(FORMS[form](dict(state)), tmp_path / "w.pth")
    assert graph(load_silently(tmp_path / "w.pth")) == expected


@pytest.mark.parametrize("form", ["published", "older", "module.", "_orig_mod.module.module."])
def test_each_form_in_safetensors_gives_the_same_graph(tmp_path, plain, form):
    state, _, expected = plain
    save_file({k: v.clone() for k, v in FORMS[form](dict(state)).items()}, tmp_path / "w.safetensors")
    assert graph(load_silently(tmp_path / "w.safetensors")) == expected


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        *((form, ".pth") for form in ("published", "model", "state_dict", "module.", "prefix inside")),
        *((form, ".safetensors") for form in ("published", "module.", "_orig_mod.module.module.")),
    ],
)
def test_the_state_dict_of_our_own_model_gives_the_same_graph(tmp_path, plain, form, suffix):
    _, model, expected = plain
    state = FORMS[form](model.state_dict())
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file({name: value.contiguous().clone() for name, value in state.items()}, file)
    assert graph(load_silently(file)) == expected


def test_the_format_before_pytorch_1_6_gives_the_same_graph(tmp_path, plain):
    state, _, expected = plain
    torch.save(mae_style(state), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert graph(load_silently(tmp_path / "w.pth")) == expected


@pytest.mark.parametrize("first", [b"\x80", b"\x1f\x8b", b"BZh"], ids=["pickle", "gzip", "bzip2"])
def test_a_safetensors_header_of_any_length_is_read(tmp_path, first):
    """The length comes first in the file, and its bytes may be those that other formats begin with."""
    save_weights(scrambled(SMALL), tmp_path / "plain.safetensors")
    data = (tmp_path / "plain.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    step = 1 << (8 * len(first))
    longer = length + (int.from_bytes(first, "little") - length) % step
    header = data[8 : 8 + length] + b" " * (longer - length)
    padded = tmp_path / "padded.safetensors"
    padded.write_bytes(longer.to_bytes(8, "little") + header + data[8 + length :])
    assert padded.read_bytes().startswith(first)
    plain, other = (load_weights(path).state_dict() for path in (tmp_path / "plain.safetensors", padded))
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_the_content_and_not_the_suffix_decides_the_format(tmp_path, plain):
    state, _, expected = plain
    torch.save(state, tmp_path / "w.safetensors")
    save_file(state, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        assert graph(load_silently(tmp_path / name)) == expected


def single_task(state, task):
    """The tensors of one task of three, as a training with `task_num: 1` saves them."""
    single = {}
    for name, value in state.items():
        prefix, _, row = name.rpartition("modal_shifts.")
        if name.endswith(("w_gate", "w_noise")):
            single[name] = value[task : task + 1].clone()
        elif prefix and int(row) // 2 == task:
            single[f"{prefix}modal_shifts.{int(row) % 2}"] = value
        elif not prefix:
            single[name] = value
    return single


@pytest.mark.parametrize(("index", "task"), list(enumerate(["vif", "mef", "mff"])))
@pytest.mark.parametrize("form", ["model", "older", "older, stacked", "own"])
def test_a_checkpoint_of_one_task_gives_the_graph_of_that_task(tmp_path, plain, index, task, form):
    state, model, _ = plain
    single = single_task(state, index)
    if form == "own":
        torch.save(single, tmp_path / "published.pth")
        single = load_weights(tmp_path / "published.pth", task=task).state_dict()
    elif form == "older, stacked":
        single = stacked(single, (2,))
    else:
        single = FORMS[form](single)
    torch.save(single, tmp_path / "single.pth")
    loaded = load_silently(tmp_path / "single.pth", task=task)
    assert loaded.sizes.tasks == (task,)
    assert graph(loaded, task) == graph(model, task)


def test_the_name_of_the_task_has_no_effect_on_a_checkpoint_of_three(tmp_path, plain):
    state, _, expected = plain
    torch.save(state, tmp_path / "w.pth")
    assert graph(load_silently(tmp_path / "w.pth", task="mff")) == expected


def test_a_checkpoint_of_one_task_needs_its_name(tmp_path):
    torch.save(single_task(to_published(scrambled(SMALL)), 0), tmp_path / "single.pth")
    with pytest.raises(InputError) as caught:
        load_weights(tmp_path / "single.pth")
    assert str(caught.value) == f"{tmp_path}/single.pth: {NAMED_FOR_TASK}. Name the task, e.g. task='vif'."
    with pytest.raises(InputError) as caught:
        load_weights(tmp_path / "single.pth", task="fog")
    assert str(caught.value) == "task: 'fog'; expected one of vif, mef, mff"


def test_a_saved_model_of_one_task_names_it(tmp_path):
    torch.save(single_task(to_published(scrambled(SMALL)), 1), tmp_path / "single.pth")
    save_weights(load_weights(tmp_path / "single.pth", task="mef"), tmp_path / "w.safetensors")
    model = load_weights(tmp_path / "w.safetensors")
    assert model.sizes.tasks == ("mef",)
    with pytest.raises(InputError) as caught:
        make_spec(
            load_weights(tmp_path / "w.safetensors", task="vif"), ExportOptions(task="vif", size=(112, 112))
        )
    assert str(caught.value) == "task: 'vif'; expected one of mef, the tasks of these weights"


def test_training_starts_from_one_task_if_it_trains_that_one(tmp_path):
    torch.save(single_task(to_published(scrambled(SMALL)), 2), tmp_path / "single.pth")
    model, fresh = load_start(tmp_path / "single.pth", {}, task="mff")
    assert model.sizes.tasks == ("mff",)
    assert not fresh
    with pytest.raises(InputError) as caught:
        load_start(tmp_path / "single.pth", {})
    assert str(caught.value) == (
        f"{tmp_path}/single.pth: {NAMED_FOR_TASK}. Write the task as the only one of 'tasks' in the configuration."
    )
    assert TrainConfig(pairs={"vif": Path(), "mff": Path()}, tasks=("mff",)).only_task == "mff"
    assert TrainConfig(pairs={"vif": Path(), "mff": Path()}).only_task is None


def test_the_checkpoint_of_a_training_run_is_its_averaged_weights(tmp_path, pairs, small_presets):
    sources = {task: pairs / task for task in ("vif", "mef", "mff")}
    trainer = Trainer(
        TrainConfig(pairs=sources, start="random", out=tmp_path, freeze_backbone=True, rounds=2)
    )
    trainer.run_round()
    trainer.save()
    loaded, written = (
        to_published(load_silently(tmp_path / name)) for name in ("checkpoint.pt", "weights.safetensors")
    )
    last_step = to_published(trainer.model)
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], written[name]) for name in loaded)
    assert not all(torch.equal(loaded[name], last_step[name]) for name in loaded)


def test_the_checkpoint_of_a_training_run_states_what_tensors_do_not_determine(tmp_path):
    model = scrambled(Sizes(32, 2, 1, 32, 2, 1, top_k=3))
    entry = json.dumps(model.sizes.to_dict())
    torch.save({"model": model.state_dict(), "average": {}, "tcmoa.sizes": entry}, tmp_path / "checkpoint.pt")
    assert load_weights(tmp_path / "checkpoint.pt").sizes == model.sizes


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_random_sizes_of_our_own_state_dict_come_back(tmp_path, suffix):
    model = scrambled(MICRO)
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), file)
    else:
        save_file(dict(model.state_dict()), file)
    loaded = load_silently(file)
    assert loaded.sizes == MICRO
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("change", "description"),
    [
        (
            lambda s: s.update({"blocks_SSF_rgb.0.SSF_beta.0": torch.zeros(7)}),
            "'blocks_MoA.0.modal_shifts.0' is (7,)",
        ),
        (lambda s: s.pop("blocks_SSF_rgb.0.SSF_beta.5"), "11 vectors; expected 12"),
        (
            lambda s: s.update({"blocks_SSF_rgb.0.SSF_beta_x": torch.zeros(3)}),
            "'blocks_MoA.0.modal_shifts_x' is (3,)",
        ),
    ],
    ids=["wrong shape", "one is missing", "another name"],
)
def test_older_source_embeddings_of_an_unknown_form_become_zeros_with_a_warning(
    tmp_path, change, description
):
    model = scrambled(SMALL)
    state = older(to_published(model))
    change(state)
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="source embeddings") as caught:
        loaded = load_weights(tmp_path / "w.pth")
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path}/w.pth: source embeddings of an unknown form ({description}); zeros are used"
    ]
    for moa in (*loaded.encoder.moas, *loaded.decoder.moas):
        assert moa.source_embedding.abs().max() == 0
    rest = [name for name in model.state_dict() if "source_embedding" not in name]
    assert all(torch.equal(loaded.state_dict()[name], model.state_dict()[name]) for name in rest)


def test_older_files_without_source_embeddings_say_so(tmp_path):
    state = older({k: v for k, v in to_published(scrambled(SMALL)).items() if "modal_shifts" not in k})
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="source embeddings") as caught:
        load_weights(tmp_path / "w.pth")
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path}/w.pth: no source embeddings (published files lack them); zeros are used"
    ]


def test_loading_draws_random_numbers_only_for_what_the_file_lacks(tmp_path):
    """The comparison of shapes before the model is built does not move torch's generator."""
    torch.save({"model": to_published(scrambled(SMALL))}, tmp_path / "w.pth")
    torch.manual_seed(0)
    TCMoA(SMALL)
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    load_weights(tmp_path / "w.pth")
    assert torch.equal(torch.get_rng_state(), expected)
