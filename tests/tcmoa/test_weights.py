"""Reading and writing weights: published files, MAE backbones, our own, and files that are none of these."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tcmoa.weights
from micro_model import MICRO, MICRO_WEIGHTS, scrambled
from tcmoa import PRESETS, Sizes, TCMoA, load_weights, save_weights
from tcmoa.checkpoint_sizes import infer_sizes
from tcmoa.weights import SIZES_KEY, to_published, weights_hash
from tcmoa_runtime.errors import InputError

SMALL = Sizes(32, 2, 1, 32, 2, 1)
"""Files of these sizes take 0.2 MB; one TC-MoA in the encoder, one in the decoder."""

ADAPTED = ("_MoA.", "FusionLayer.", "relative_position.", "Alpha_")


def same(a, b):
    """Whether two models have bit-equal parameters of the same names."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def published_file(model):
    """The model as the authors' files hold it: no source embeddings, but constants and indices."""
    state = {key: value for key, value in to_published(model).items() if "modal_shifts" not in key}
    state["en_relative_position.0.relative_position_index"] = torch.zeros(196, 196, dtype=torch.int64)
    state["blocks_MoA.0.MoA.mean"], state["blocks_MoA.0.MoA.std"] = torch.zeros(1), torch.ones(1)
    return state


def mae_file(model):
    """The model's backbone as an MAE checkpoint."""
    state = {key: value for key, value in to_published(model).items() if not any(a in key for a in ADAPTED)}
    return {"model": {**state, "mask_token": torch.zeros(1, 1, model.sizes.decoder_embed_dim)}}


def refusal(path):
    """The one line with which `path` is refused."""
    with pytest.raises(InputError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_float32_comes_back_bit_for_bit(tmp_path, micro):
    save_weights(micro, tmp_path / "w.safetensors", notes={"origin": "test"})
    loaded = load_weights(tmp_path / "w.safetensors")
    assert same(loaded, micro)
    assert not loaded.training
    assert loaded.sizes == MICRO
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata()["origin"] == "test"


def test_float16_halves_the_file_and_comes_back_rounded(tmp_path, micro):
    save_weights(micro, tmp_path / "full.safetensors")
    save_weights(micro, tmp_path / "half.safetensors", dtype=torch.float16)
    loaded = load_weights(tmp_path / "half.safetensors")
    for name, value in micro.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    full, half = (path.stat().st_size for path in sorted(tmp_path.iterdir()))
    assert half < 0.55 * full


def test_a_failed_save_leaves_the_existing_file(tmp_path, monkeypatch):
    target = tmp_path / "w.safetensors"
    save_weights(scrambled(SMALL), target)
    before = target.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tcmoa.weights, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_weights(scrambled(SMALL, seed=1), target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_pth_files_with_all_parameters(tmp_path, prefix, wrapped):
    model = scrambled(SMALL)
    state = {prefix + key: value for key, value in to_published(model).items()}
    torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    assert same(load_weights(tmp_path / "w.pth"), model)


def test_missing_source_embeddings_become_zeros_with_a_warning(tmp_path, micro):
    torch.save({"model": published_file(micro)}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="no source embeddings .* zeros are used"):
        loaded = load_weights(tmp_path / "w.pth")
    for moa in (*loaded.encoder.moas, *loaded.decoder.moas):
        assert moa.source_embedding.abs().max() == 0
        moa.source_embedding = None
    without = {name: v for name, v in micro.state_dict().items() if "source_embedding" not in name}
    assert loaded.state_dict().keys() == without.keys()
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in without.items())


def test_source_embeddings_may_carry_axes_of_length_one(tmp_path):
    model = scrambled(SMALL)
    state = {k: v.view(1, 1, -1) if "modal_shifts" in k else v for k, v in to_published(model).items()}
    torch.save(state, tmp_path / "w.pth")
    assert same(load_weights(tmp_path / "w.pth"), model)


def test_an_mae_backbone_is_loaded_with_a_warning_about_untrained_parts(tmp_path):
    model = scrambled(Sizes(128, 4, 2, 64, 2, 2))
    torch.save(mae_file(model), tmp_path / "mae.pth")
    with pytest.warns(UserWarning, match="an MAE backbone; .* are untrained"):
        loaded = load_weights(tmp_path / "mae.pth")
    assert loaded.sizes == model.sizes  # heads: 128 / 64 in the encoder, 64 / 32 in the decoder
    for name, value in model.state_dict().items():
        adapted = ".moas." in name or ".biases." in name
        assert torch.equal(loaded.state_dict()[name], value) != adapted, name
    for moa in (*loaded.encoder.moas, *loaded.decoder.moas):
        assert moa.mix == 0.5
        assert 0.01 < moa.prompts.routers.gate.std() < 0.03  # zeros would never choose the last adapters


@pytest.mark.parametrize(("preset", "heads"), [("base", (12, 16)), ("large", (16, 16))])
def test_heads_of_the_real_mae_backbones(preset, heads):
    with torch.device("meta"):
        state = mae_file(TCMoA(PRESETS[preset]))["model"]
    sizes = infer_sizes(state, "mae.pth")
    assert sizes == PRESETS[preset]
    assert (sizes.num_heads, sizes.decoder_num_heads) == heads


@pytest.mark.parametrize(
    "sizes",
    [
        *PRESETS.values(),
        Sizes(64, 2, 1, 32, 2, 1),
        Sizes(64, 4, 4, 96, 2, 3, patch_size=8, mlp_ratio=2, window=8, experts=3),
        Sizes(32, 8, 2, 32, 4, 2, tau=2, window=4),
        Sizes(32, 12, 2, 32, 6, 2, tau=6, window=4),
    ],
    ids=str,
)
def test_sizes_are_inferred_from_the_tensors(sizes):
    """The use of the image too, where the sizes are a preset's; other files do not show it."""
    with torch.device("meta"):
        state = to_published(TCMoA(sizes))
    known = sizes in PRESETS.values()
    assert infer_sizes(state, "w.pth") == (sizes if known else replace(sizes, output="image"))


def test_our_own_files_state_that_a_model_weighs_the_sources(tmp_path):
    model = scrambled(MICRO_WEIGHTS)
    save_weights(model, tmp_path / "w.safetensors")
    loaded = load_weights(tmp_path / "w.safetensors")
    assert (loaded.sizes, loaded.upsample) == (MICRO_WEIGHTS, False)
    assert same(loaded, model)


@settings(max_examples=20)
@given(
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    heads=st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8])),
    depths=st.tuples(st.integers(1, 6), st.integers(1, 4)),
    window=st.sampled_from([4, 7, 14]),
    experts=st.integers(2, 6),
)
def test_sizes_of_any_model_are_inferred(widths, heads, depths, window, experts):
    sizes = Sizes(
        32 * widths[0],
        2 * depths[0],
        heads[0],
        32 * widths[1],
        2 * depths[1],
        heads[1],
        window=window,
        experts=experts,
    )
    with torch.device("meta"):
        state = to_published(TCMoA(sizes))
    assert infer_sizes(state, "w.pth") == sizes


def test_sizes_that_tensors_do_not_determine_are_stored_as_metadata(tmp_path):
    sizes = replace(SMALL, top_k=3)
    save_weights(scrambled(sizes), tmp_path / "w.safetensors")
    assert load_weights(tmp_path / "w.safetensors").sizes == sizes


class Evil:
    """Pickles as a call that makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, zipped):
    trace, file = tmp_path / "trace", tmp_path / "w.pth"
    state = {**to_published(scrambled(SMALL)), "extra": Evil(trace)}
    torch.save({"model": state}, file, _use_new_zipfile_serialization=zipped)
    assert "holds objects other than tensors (__builtin__.getattr, pathlib.Path" in refusal(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)
    assert trace.exists()  # the file is as evil as it looks


def damaged(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_not_weights_are_refused(tmp_path, suffix):
    file = tmp_path / f"w{suffix}"
    assert "no such weights file" in refusal(file)
    assert "an empty file" in refusal(damaged(file, b""))
    assert "a text file that begins with 'not weights,'" in refusal(
        damaged(file, b"not weights,\nbut text\n" * 9)
    )
    assert "a file of another kind" in refusal(damaged(file, bytes(range(256))))
    file.unlink()
    file.mkdir()
    assert "a folder" in refusal(file)


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.9, 0.9999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(to_published(scrambled(SMALL)), file)
    else:
        save_weights(scrambled(SMALL), file)
    content = file.read_bytes()
    assert "cut short" in refusal(damaged(file, content[: int(share * len(content))]))


@settings(max_examples=60)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_random_bytes_are_refused_in_one_line(tmp_path, content, suffix):
    refusal(damaged(tmp_path / f"w{suffix}", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"epoch": 3}}, "holds no tensors"),
        ({}, "holds no tensors"),
        ([torch.zeros(3)], "holds a list; expected a dictionary of tensors"),
        ({"weight": torch.zeros(3)}, "tensor 'patch_embed.proj.weight' is missing"),
        ({"patch_embed.proj.weight": torch.zeros(3)}, r"has shape \(3,\); expected 4 axes"),
        ({"patch_embed.proj.weight": torch.zeros(0, 3, 16, 16)}, "which is empty"),
    ],
    ids=["no tensor", "nothing", "a list", "another model", "wrong rank", "empty tensor"],
)
def test_checkpoints_of_other_models_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        load_weights(tmp_path / "w.pth")
    refusal(tmp_path / "w.pth")


def refused_state(tmp_path, change):
    """The refusal of a complete file after `change` of its tensors."""
    state = to_published(scrambled(SMALL))
    change(state)
    torch.save(state, tmp_path / "w.pth")
    return refusal(tmp_path / "w.pth")


def test_at_most_three_missing_tensors_are_named(tmp_path):
    message = refused_state(tmp_path, lambda state: state.pop("norm.weight"))
    assert message.endswith("does not fit a custom TC-MoA; missing: norm.weight")

    def drop_block(state):
        for key in [key for key in state if key.startswith("decoder_blocks.1.mlp")]:
            del state[key]

    message = refused_state(tmp_path, drop_block)
    names = [f"decoder_blocks.1.mlp.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight")]
    assert message.endswith(f"missing: {', '.join(names)} and 1 more")


def test_unexpected_tensors_are_named(tmp_path):
    message = refused_state(
        tmp_path, lambda state: state.update({f"head.{n}": torch.zeros(1) for n in range(5)})
    )
    assert message.endswith("unexpected: head.0, head.1, head.2 and 2 more")


def test_misshapen_tensors_are_named_with_both_shapes(tmp_path):
    message = refused_state(tmp_path, lambda state: state.update({"norm.weight": torch.zeros(5)}))
    assert message.endswith("misshapen: 'norm.weight' is (5,), expected (32,)")


def test_a_transposed_tensor_is_misshapen_despite_its_equal_number_of_values(tmp_path):
    key = "blocks.1.mlp.fc1.weight"
    message = refused_state(tmp_path, lambda state: state.update({key: state[key].T.contiguous()}))
    assert message.endswith(f"misshapen: '{key}' is (32, 128), expected (128, 32)")


def test_another_number_of_tasks_is_refused(tmp_path):
    message = refused_state(
        tmp_path, lambda state: state.update({"blocks_MoA.0.MoA.w_gate": torch.zeros(2, 8, 4)})
    )
    assert "2 tasks in 'blocks_MoA.0.MoA.w_gate'; expected 3 (vif, mef, mff) or 1" in message


@pytest.mark.parametrize("entry", ["{", "[1]", "7", "{}", json.dumps({**SMALL.to_dict(), "num_heads": 0})])
def test_damaged_stored_sizes_are_refused(tmp_path, entry):
    save_file(to_published(scrambled(SMALL)), tmp_path / "w.safetensors", metadata={SIZES_KEY: entry})
    assert f"its '{SIZES_KEY}' entry is not readable" in refusal(tmp_path / "w.safetensors")


def test_stored_sizes_of_another_model_are_refused(tmp_path):
    sizes = json.dumps(replace(SMALL, depth=4).to_dict())
    save_file(to_published(scrambled(SMALL)), tmp_path / "w.safetensors", metadata={SIZES_KEY: sizes})
    assert "states depth = 4; expected 2 as in its tensors" in refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_bundled_weights_are_complete(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name does not hide the weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_weights(name).sizes == PRESETS[name]


def test_weights_of_base_are_not_bundled():
    with pytest.raises(InputError, match="no weights of 'base' are included in this package"):
        load_weights("base")


def test_equal_weights_have_equal_hashes_after_saving_and_loading(tmp_path):
    model = scrambled(SMALL)
    save_weights(model, tmp_path / "w.safetensors")
    again = load_weights(tmp_path / "w.safetensors", upsample=False).train()
    again.requires_grad_(False)
    assert weights_hash(again) == weights_hash(model)


@pytest.mark.parametrize(
    "name", ["encoder.blocks.0.norm1.bias", "decoder.moas.0.mix", "encoder.moas.0.source_embedding"]
)
def test_one_bit_changes_the_hash(name):
    model = scrambled(SMALL)
    before = weights_hash(model)
    parameter = model.get_parameter(name)
    with torch.no_grad():
        first = parameter.view(-1)[:1]
        first.copy_(torch.nextafter(first, torch.full((1,), 9.0)))
    assert weights_hash(model) != before


def test_published_names_are_those_of_the_authors_checkpoint(golden):
    state = load_file(golden / "checkpoint.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_weights(golden / "checkpoint.safetensors")
    published = to_published(model)
    assert all(torch.equal(published[key].flatten(), state[key].flatten()) for key in published)
    rest = {key.rsplit(".", 1)[-1] for key in state.keys() - published.keys()}
    assert rest <= {"relative_position_index", "mean", "std"}


def test_the_tensors_of_a_preset_are_weighed_as_the_preset_does():
    with torch.device("meta"):
        state = to_published(TCMoA(PRESETS["nano"]))
    assert infer_sizes(state, "w.pth") == PRESETS["nano"]


def test_a_size_that_a_later_version_added_is_not_ignored(tmp_path):
    path, entry = tmp_path / "w.safetensors", json.dumps({**SMALL.to_dict(), "curve": "log"})
    save_file(to_published(scrambled(SMALL)), path, metadata={SIZES_KEY: entry})
    message = refusal(path)
    assert message.startswith(f"{path}: its '{SIZES_KEY}' entry states 'curve'; expected embed_dim, ")
    assert message.endswith("which this version knows. Update tcmoa.")
