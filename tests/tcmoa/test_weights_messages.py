"""Files that are no checkpoint, each with the whole line that says so."""

import argparse
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hostile.cpu_time import limited_cpu_time
from micro_model import scrambled
from tcmoa import Sizes, load_weights
from tcmoa.checkpoint_names import to_published
from tcmoa.weights import SIZES_KEY
from tcmoa_runtime.errors import InputError

SMALL = Sizes(32, 2, 1, 32, 2, 1)
CHECKPOINT = "expected a checkpoint (.pth, .safetensors)"
DOWNLOAD = "Download or copy the file once more."


def refusal(path):
    """The line with which a file is refused, without the file's name."""
    with pytest.raises(InputError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert message.isprintable()
    assert "weights_only=True" not in message
    return message.removeprefix(f"{path}: ")


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", f"an empty file; {CHECKPOINT}. {DOWNLOAD}"),
        (
            b"\n<!DOCTYPE html>\n<html><title>Sign in</title>",
            f"an HTML page; {CHECKPOINT}. Download the file itself, e.g. with the link that the page shows.",
        ),
        (
            b"\xef\xbb\xbf<HTML><body>",
            f"an HTML page; {CHECKPOINT}. Download the file itself, e.g. with the link that the page shows.",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1383940352\n",
            f"a Git LFS pointer to the file; {CHECKPOINT}. Run `git lfs pull` in the repository that it comes from.",
        ),
        (
            b'{"error": "quota exceeded"}',
            f'a text file that begins with \'{{"error": "quota exceeded"}}\'; {CHECKPOINT}',
        ),
        ("schön\n".encode() * 300, f"a text file that begins with 'schön'; {CHECKPOINT}"),
        (b"x" * 900, f"a text file that begins with '{'x' * 57}...'; {CHECKPOINT}"),
        (b"\x1b[31mred\x1b[0m", f"a file of another kind; {CHECKPOINT}. {DOWNLOAD}"),
        (gzip.compress(b"a"), f"a gzip archive; {CHECKPOINT}. Unpack it and give the checkpoint in it."),
        (bytes(500), f"a file of another kind; {CHECKPOINT}. {DOWNLOAD}"),
    ],
    ids=[
        "empty",
        "HTML",
        "HTML with BOM",
        "LFS",
        "JSON",
        "text",
        "long text",
        "escape codes",
        "gzip",
        "zeros",
    ],
)
def test_files_of_other_kinds(tmp_path, suffix, content, line):
    assert refusal(written(tmp_path / f"w{suffix}", content)) == line


def test_a_missing_file_and_a_folder(tmp_path):
    remedy = "Give a .pth or .safetensors file, or 'tiny' or 'nano'."
    assert refusal(tmp_path / "none.pth") == f"no such weights file. {remedy}"
    assert refusal(tmp_path) == f"a folder; {CHECKPOINT}"


def zipped(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return path


def test_archives_of_something_else(tmp_path):
    assert refusal(zipped(tmp_path / "a.pth", "notes.txt")) == f"a zip archive of 'notes.txt'; {CHECKPOINT}"
    assert refusal(zipped(tmp_path / "b.pth", "a\x1b[0m", "b")) == (
        f"a zip archive of 'a\\x1b[0m' and 1 more; {CHECKPOINT}"
    )
    assert refusal(zipped(tmp_path / "c.pth", "readme.md", "run/base.pth")) == (
        f"a zip archive of other files; {CHECKPOINT}. Unpack it and give 'run/base.pth'."
    )
    with tarfile.open(tmp_path / "d.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    assert (
        refusal(tmp_path / "d.pth")
        == f"a tar archive; {CHECKPOINT}. Unpack it and give the checkpoint in it."
    )


def test_a_cut_zip_archive(tmp_path):
    torch.save(to_published(scrambled(SMALL)), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    line = f"a zip archive that is cut short or damaged; {CHECKPOINT}. {DOWNLOAD}"
    assert refusal(written(tmp_path / "w.pth", content[:-100])) == line


def test_a_damaged_pytorch_file(tmp_path):
    line = f"a damaged PyTorch checkpoint; expected one that torch.load reads. {DOWNLOAD}"
    assert refusal(zipped(tmp_path / "w.pth", "w/data.pkl")) == line
    torch.save({"a": torch.zeros(100)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "old.pth").read_bytes()
    assert refusal(written(tmp_path / "old.pth", content[:-100])) == line
    assert refusal(written(tmp_path / "old.pth", content[:60])) == line


def test_a_cut_safetensors_file(tmp_path):
    save_file(to_published(scrambled(SMALL)), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    line = f"cut short: {len(content) - 9} bytes; expected at least {len(content)} by its header. {DOWNLOAD}"
    assert refusal(written(tmp_path / "w.safetensors", content[:-9])) == line
    line = f"a damaged safetensors file; expected a header that fits its tensors. {DOWNLOAD}"
    assert refusal(written(tmp_path / "w.safetensors", content + b"1")) == line
    assert refusal(written(tmp_path / "w.safetensors", content.replace(b"F32", b"F3\x1b"))) == line


class Settings:
    """A class of another program."""

    def __init__(self, value=1):
        self.value = value


def recipe(path, name, save):
    return (
        f"If you trust the file, save its tensors where {name} can be imported: "
        f"`c = torch.load({str(path)!r}, map_location='cpu', weights_only=False)`, "
        f"then `torch.save({save}, 'w-tensors.pth')`"
    )


def follow(recipe_line, folder, monkeypatch):
    """Run the two lines of a recipe in a folder."""
    monkeypatch.chdir(folder)
    _, first, _, second, _ = recipe_line.split("`")
    names = {"torch": torch}
    exec(f"{first}\n{second}", names)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_foreign_classes_are_named_with_a_recipe_that_works(tmp_path, monkeypatch, is_zip, key):
    model = scrambled(SMALL)
    state = to_published(model)
    content = {**state, "settings": Settings()} if key is None else {key: state, "settings": Settings()}
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    name = f"{Settings.__module__}.Settings"
    weights = "c" if key is None else f"c[{key!r}]"
    save = f"{{k: v for k, v in {weights}.items() if torch.is_tensor(v)}}"
    line = refusal(path)
    assert line == (
        f"holds objects other than tensors ({name}); expected tensors only. {recipe(path, name, save)}"
    )
    follow(line, tmp_path, monkeypatch)
    loaded = to_published(load_weights("w-tensors.pth"))
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("key", ["model", None])
def test_a_whole_pickled_module_is_named_with_a_recipe_that_works(tmp_path, monkeypatch, is_zip, key):
    model = scrambled(SMALL)
    path = tmp_path / "w.pth"
    torch.save(model if key is None else {key: model}, path, _use_new_zipfile_serialization=is_zip)
    weights = "c" if key is None else f"c[{key!r}]"
    line = refusal(path)
    assert line == (
        "holds a whole pickled module (tcmoa.model.TCMoA); expected its state dict. "
        f"{recipe(path, 'tcmoa.model.TCMoA', f'{weights}.state_dict()')}"
    )
    follow(line, tmp_path, monkeypatch)
    loaded = load_weights("w-tensors.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_at_most_three_classes_are_named(tmp_path):
    others = [np.float64(1), Settings(), io.StringIO, zipfile.ZipFile, tarfile.TarInfo]
    torch.save({"others": others}, tmp_path / "w.pth")
    line = refusal(tmp_path / "w.pth")
    assert line.startswith("holds objects other than tensors (numpy")
    assert " and 3 more); expected tensors only. If you trust the file" in line


def test_options_of_argparse_hide_no_other_class(tmp_path):
    torch.save({"model": {}, "args": argparse.Namespace(settings=Settings())}, tmp_path / "w.pth")
    name = f"{Settings.__module__}.Settings"
    assert refusal(tmp_path / "w.pth").startswith(f"holds objects other than tensors ({name}); ")


def test_a_class_whose_name_has_escape_codes(tmp_path):
    pickled = b"\x80\x02cevil\x1b[31m\nClass\n)\x81."
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/version", "3\n")
        archive.writestr("w/byteorder", "little")
    assert refusal(tmp_path / "w.pth").startswith(
        r"holds objects other than tensors (evil\x1b[31m.Class); expected tensors only. "
    )


def test_a_newer_pickle_protocol_is_named_with_a_recipe_that_works(tmp_path, monkeypatch):
    model, path = scrambled(SMALL), tmp_path / "w.pth"
    torch.save({"model": to_published(model)}, path, pickle_protocol=4)
    line = refusal(path)
    assert line == (
        "pickled with protocol 4; expected protocol 2, the default of torch.save. "
        "If you trust the file, save its tensors "
        f"with the default protocol: `c = torch.load({str(path)!r}, map_location='cpu', weights_only=False)`, "
        "then `torch.save({k: v for k, v in c['model'].items() if torch.is_tensor(v)}, 'w-tensors.pth')`"
    )
    follow(line, tmp_path, monkeypatch)
    assert load_weights("w-tensors.pth").sizes == SMALL


def test_torchscript_is_named_with_a_recipe_that_works(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 3)), str(path))
    line = refusal(path)
    assert line == (
        "a TorchScript archive; expected a state dict. If you trust the file, save its tensors: "
        f"`m = torch.jit.load({str(path)!r}, map_location='cpu')`, then `torch.save(m.state_dict(), 'w-tensors.pth')`"
    )
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        follow(line, tmp_path, monkeypatch)
    assert torch.load(tmp_path / "w-tensors.pth").keys() == {"weight", "bias"}


def test_other_pickles(tmp_path):
    line = (
        "a pickle that torch.save did not write; expected a state dict. Save the state dict with `torch.save`"
    )
    assert refusal(written(tmp_path / "w.pkl", pickle.dumps({"a": np.zeros(3)}))) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (torch.zeros(3), "holds a single tensor; expected a dictionary of tensors"),
        (7, "holds a int; expected a dictionary of tensors"),
        ({"model": {"epoch": 3}}, "holds no tensors; expected a TC-MoA checkpoint or an MAE backbone"),
        (
            {"weight": torch.zeros(3, device="meta")},
            "tensor 'weight' is without values; expected dense real numbers",
        ),
        (
            {"weight": torch.eye(3).to_sparse()},
            "tensor 'weight' is of type torch.float32, torch.sparse_coo; expected dense real numbers",
        ),
        (
            {"weight": torch.zeros(3, dtype=torch.complex64)},
            "tensor 'weight' is of type torch.complex64, torch.strided; expected dense real numbers",
        ),
        (
            {"a.b": torch.zeros(3), "module.a.b": torch.zeros(3)},
            "two tensors are called 'a.b', one of them as 'module.a.b'; expected the tensors of one model",
        ),
    ],
    ids=["a tensor", "a number", "no tensor", "no values", "sparse", "complex", "two models"],
)
def test_contents_that_are_no_model(tmp_path, content, line):
    torch.save(content, tmp_path / "w.pth")
    assert refusal(tmp_path / "w.pth") == line


def test_a_dictionary_that_contains_itself(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    assert refusal(tmp_path / "w.pth") == "holds no tensors; expected a TC-MoA checkpoint or an MAE backbone"


def test_names_of_tensors_with_escape_codes_are_shown_as_text(tmp_path):
    torch.save({**to_published(scrambled(SMALL)), "a\x1b[0m\nb": torch.zeros(1)}, tmp_path / "w.pth")
    assert refusal(tmp_path / "w.pth") == r"does not fit a custom TC-MoA; unexpected: a\x1b[0m\nb"


def stated(path, **changes):
    """A complete file that states other sizes."""
    sizes = SMALL.to_dict() | changes
    save_file(to_published(scrambled(SMALL)), path, metadata={SIZES_KEY: json.dumps(sizes)})
    return path


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"depth": 10**6}, "depth = 1000000; expected 2"),
        ({"decoder_depth": 10**6}, "decoder_depth = 1000000; expected 2"),
        ({"embed_dim": 32 * 10**6}, "embed_dim = 32000000; expected 32"),
        ({"mlp_ratio": 10**9}, "mlp_ratio = 1000000000; expected 4"),
        ({"window": 10**5}, "window = 100000; expected 14"),
        ({"experts": 10**9}, "experts = 1000000000; expected 4"),
        ({"tasks": ["vif"]}, "tasks = 1; expected 3"),
    ],
    ids=str,
)
def test_stated_sizes_that_differ_from_the_tensors_are_refused_at_once(tmp_path, changes, line):
    path = stated(tmp_path / "w.safetensors", **changes)
    with limited_cpu_time(10.0):
        message = refusal(path)
    assert message == (
        f"its '{SIZES_KEY}' entry states {line} as in its tensors. "
        "Remove the entry, or use the file that `save_weights` wrote."
    )


@pytest.mark.parametrize("entry", ["[" * 100_000, '{"depth": ' + "9" * 5000 + "}", "{}", "nonsense"])
def test_unreadable_stated_sizes(tmp_path, entry):
    save_file(to_published(scrambled(SMALL)), tmp_path / "w.safetensors", metadata={SIZES_KEY: entry})
    assert refusal(tmp_path / "w.safetensors") == (
        f"its '{SIZES_KEY}' entry is not readable; expected a JSON object of sizes"
    )


def test_stated_tasks_that_do_not_exist(tmp_path):
    assert refusal(stated(tmp_path / "w.safetensors", tasks=["a", "b", "c"])) == (
        f"its '{SIZES_KEY}' entry has other tasks; expected some of vif, mef, mff"
    )


def test_a_tau_that_does_not_fit_is_refused(tmp_path):
    save_file(
        to_published(scrambled(SMALL)),
        tmp_path / "w.safetensors",
        metadata={SIZES_KEY: json.dumps(replace(SMALL, tau=10**6).to_dict())},
    )
    assert refusal(tmp_path / "w.safetensors") == (
        "does not fit a custom TC-MoA; unexpected: Alpha_decoder, Alpha_encoder, FusionLayer.0.conv1.weight and 63 more"
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"blocks.999999.norm1.weight": torch.zeros(32)},
            "all tensors of 'blocks.2' are missing, but not those of 'blocks.999999'",
        ),
        (
            {"decoder_embed.weight": torch.zeros(10**6 * 32, 1)},
            "does not fit a custom TC-MoA; misshapen: ",
        ),
        (
            {"en_relative_position.0.relative_position_bias_table": torch.zeros(1999**2, 1)},
            "windows of 1000 tokens; expected at most 64",
        ),
    ],
    ids=["a block", "a width", "a window"],
)
def test_a_tensor_that_claims_a_huge_model_is_refused_before_it_is_built(tmp_path, change, line):
    torch.save({**to_published(scrambled(SMALL)), **change}, tmp_path / "w.pth")
    with limited_cpu_time(10.0):
        message = refusal(tmp_path / "w.pth")
    assert message == line or (line.endswith(": ") and message.startswith(line))
