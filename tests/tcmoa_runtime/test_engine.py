"""Engines of a bundle: reading their description, and refusing damaged or foreign ones before they are loaded."""

import dataclasses
import json
import os
import shutil

import pytest

from tcmoa_runtime import Bundle, BundleError
from tcmoa_runtime.engine import BuilderGpu, Engine, EngineDescription, engine_stem, write_engine
from tcmoa_runtime.engine_folders import ENGINE_SUFFIX, ENGINES_FOLDER, find_engines
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256

DATA = b"what a builder serialized" * 40
WEIGHTS = b"an ONNX graph"
GPU = BuilderGpu("NVIDIA Something", "8.9")


def write(bundle, data=DATA, **changes):
    audit = changes.pop("audit", None)
    fields = {"flavor": "rtx", "version": "1.7.1.116", "precision": "fp16", "gpu": GPU, **changes}
    return write_engine(bundle, data, EngineDescription(**fields), audit)


@pytest.fixture
def bundle(broken):
    return Bundle.open(broken)


@pytest.fixture
def engine(bundle):
    return write(bundle)


def refusal(call, *arguments):
    """Return the message of a refused call, which is one line and names the command to run."""
    with pytest.raises(BundleError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert "tcmoa build" in text
    return text


def change(engine, function, *, sign=True):
    """Change an engine's JSON; with `sign`, update its own hash."""
    path = engine.path.with_suffix(".json")
    manifest = json.loads(path.read_bytes())
    function(manifest)
    if sign:
        manifest[SELF_HASH] = manifest_sha256(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("targets", "name"),
    [((), "rtx-1.7.1.116-local-fp16"), (("sm86", "sm89"), "rtx-1.7.1.116-sm86+sm89-fp16")],
)
def test_file_names_describe_engines(targets, name):
    assert engine_stem("rtx", "1.7.1.116", targets, "fp16") == name


def test_an_engine_has_the_fields_of_its_description(bundle, engine):
    assert engine.path == bundle.path / ENGINES_FOLDER / "rtx-1.7.1.116-local-fp16.engine"
    assert (engine.flavor, engine.version, engine.precision) == ("rtx", "1.7.1.116", "fp16")
    assert (engine.targets, engine.stripped, engine.weights) == ((), False, None)
    assert engine.read() == DATA
    assert engine.manifest == json.loads(engine.path.with_suffix(".json").read_bytes())
    assert Engine.open(bundle, str(engine.path)).manifest == engine.manifest


def test_audit_and_options_of_the_builder_are_kept(bundle):
    audit = {
        "kernels": 7,
        "attentions": 2,
        "fused_attentions": 2,
        "bytes_moved": 9,
        "precisions": {"fp16": 7},
    }
    written = write(bundle, audit=audit, options={"level": 3})
    assert {key: written.manifest[key] for key in audit} == audit
    assert written.manifest["options"] == {"level": 3}


def test_the_audit_cannot_overwrite_the_description(bundle):
    assert write(bundle, audit={"flavor": "tensorrt", "engine": {}}).flavor == "rtx"


def test_an_engine_is_immutable(engine):
    with pytest.raises(dataclasses.FrozenInstanceError):
        engine.path = "x"


def test_engines_are_found_sorted_by_name(bundle):
    assert find_engines(bundle) == []
    second, first = write(bundle), write(bundle, flavor="rtx", precision="bf16")
    (bundle.path / ENGINES_FOLDER / "rtx-1.7.1.116-local-fp16.runtime_cache").write_bytes(b"x")
    assert find_engines(bundle) == [first.path, second.path]


def test_writing_an_engine_again_replaces_it(bundle, engine):
    again = write(bundle, b"another")
    assert again.path == engine.path
    assert again.read() == b"another"
    assert len(list((bundle.path / ENGINES_FOLDER).iterdir())) == 2


def test_an_interrupted_write_leaves_no_engine_with_the_old_description(bundle, engine, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tcmoa_runtime.engine.write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(bundle, b"another")
    assert "has no rtx-1.7.1.116-local-fp16.json" in refusal(Engine.open, bundle, engine.path)


@pytest.mark.parametrize(
    "changes", [{"flavor": "trt"}, {"precision": "fp8"}, {"targets": ["8.9"]}, {"version": ""}]
)
def test_an_engine_that_could_not_be_opened_is_not_written(changes, bundle, tree):
    before = tree(bundle.path)
    refusal(lambda: write(bundle, **changes))
    assert tree(bundle.path) == before


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


JSON_DAMAGES = {
    "missing": (lambda p: p.unlink(), "has no"),
    "empty": (lambda p: p.write_bytes(b""), "not valid JSON"),
    "half": (lambda p: cut(p, 0.5), "not valid JSON"),
    "binary": (lambda p: p.write_bytes(bytes(range(256))), "not valid JSON"),
    "huge": (lambda p: p.write_bytes(b" " * ((1 << 20) + 1)), "1048577 bytes; expected at most 1048576"),
    "foreign": (lambda p: p.write_bytes(b'{"a": 1}'), "not the description of an engine"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "has no"),
    "edited": (lambda p: p.write_text(p.read_text().replace("1.7.1.116", "1.7.1.117")), "edited or damaged"),
}


@pytest.mark.parametrize("damage", JSON_DAMAGES)
def test_a_damaged_description_is_refused(damage, bundle, engine):
    do, words = JSON_DAMAGES[damage]
    do(engine.path.with_suffix(".json"))
    assert words in refusal(Engine.open, bundle, engine.path)


ENGINE_DAMAGES = {
    "empty": (
        lambda p: p.write_bytes(b""),
        "0 bytes, truncated or another file; expected 1000 as in its JSON",
    ),
    "half": (lambda p: cut(p, 0.5), "truncated"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "as in its JSON"),
    "first bit": (lambda p: flip(p, 0), "SHA-256"),
    "last bit": (lambda p: flip(p, -1), "SHA-256"),
    "gone": (lambda p: p.unlink(), "no such engine"),
}


@pytest.mark.parametrize("damage", ENGINE_DAMAGES)
def test_a_damaged_engine_is_refused(damage, engine):
    do, words = ENGINE_DAMAGES[damage]
    do(engine.path)
    assert words in refusal(engine.read)


def test_swapped_engines_are_refused(bundle, engine):
    other = write(bundle, DATA[::-1], precision="fp32")
    spare = bundle.path / "spare"
    engine.path.rename(spare)
    other.path.rename(engine.path)
    spare.rename(other.path)
    assert "SHA-256" in refusal(Engine.open(bundle, engine.path).read)


def test_an_engine_under_another_name_is_refused(bundle, engine):
    for suffix in (ENGINE_SUFFIX, ".json"):
        old = engine.path.with_suffix(suffix)
        old.rename(old.with_name(f"rtx-1.7.1.117-local-fp16{suffix}"))
    assert "was renamed" in refusal(
        Engine.open, bundle, bundle.path / ENGINES_FOLDER / "rtx-1.7.1.117-local-fp16.engine"
    )


def setting(*keys, to):
    def set_value(manifest):
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return set_value


FORGERIES = {
    "newer format": (setting("format_version", to=2), "format version 2 is newer"),
    "format zero": (setting("format_version", to=0), "'format_version' is 0"),
    "flavor": (setting("flavor", to="trt"), "'flavor' is 'trt'"),
    "precision": (setting("precision", to="int3"), "'precision'"),
    "version": (setting("version", to="1/2"), "'version' is '1/2'"),
    "targets": (setting("targets", to=["ampere"]), "'targets' is ['ampere']; expected compute capabilities"),
    "no targets": (setting("targets", to=None), "'targets' is None"),
    "compatibility": (setting("hardware_compatibility", to="all"), "'hardware_compatibility'"),
    "gpu": (setting("gpu", to="8.9"), "'gpu' is '8.9'"),
    "capability": (setting("gpu", "compute_capability", to="89"), "'gpu.compute_capability' is '89'"),
    "no graph": (setting("graph", to={}), "'graph.name' is None"),
    "engine size": (setting("engine", "bytes", to="1"), "'engine.bytes'"),
    "stripped": (setting("stripped", to=1), "'stripped' is 1"),
    "options": (setting("options", to=[]), "'options'"),
    "weights outside": (
        setting("weights", to={"file": "../../w", "sha256": "0", "bytes": 1}),
        "'weights.file' is '../../w'",
    ),
    "hidden weights": (setting("weights", to={"file": "..", "sha256": "0", "bytes": 1}), "'weights.file'"),
    "weights without hash": (setting("weights", to={"file": "w", "bytes": 1}), "'weights.sha256'"),
    "other graph": (setting("graph", "files", to={"fusion.onnx": "0" * 64}), "built from the graph"),
    "other graph's name": (setting("graph", "name", to="another"), "built from the graph 'another'"),
    "other contract": (setting("contract", "outputs", to={}), "'contract'"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_wrong_description_with_the_right_hash_is_refused(forgery, bundle, engine):
    function, words = FORGERIES[forgery]
    change(engine, function)
    assert words in refusal(Engine.open, bundle, engine.path)


@pytest.mark.parametrize(
    "key",
    ["flavor", "version", "precision", "targets", "hardware_compatibility", "graph", "engine", "weights"],
)
def test_a_missing_key_is_refused(key, bundle, engine):
    change(engine, lambda manifest: manifest.pop(key))
    refusal(Engine.open, bundle, engine.path)


def test_an_engine_of_another_bundle_is_refused(bundle, exported, tmp_path, engine):
    other = shutil.copytree(exported("plain"), tmp_path / "other")
    shutil.copytree(bundle.path / ENGINES_FOLDER, other / ENGINES_FOLDER)
    text = refusal(Engine.open, Bundle.open(other), other / ENGINES_FOLDER / engine.path.name)
    assert "built from the graph" in text
    assert f"`tcmoa build {other}`, flavor rtx" in text


def test_only_engines_inside_the_bundle_are_opened(bundle, engine, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(bundle.path / ENGINES_FOLDER, outside)
    assert "native code" in refusal(Engine.open, bundle, outside / engine.path.name)
    (bundle.path / "deep").mkdir()
    shutil.copytree(bundle.path / ENGINES_FOLDER, bundle.path / "deep" / ENGINES_FOLDER)
    assert "native code" in refusal(
        Engine.open, bundle, bundle.path / "deep" / ENGINES_FOLDER / engine.path.name
    )


def test_paths_that_lead_back_into_the_bundle_are_accepted(bundle, engine, monkeypatch):
    monkeypatch.chdir(bundle.path)
    assert Engine.open(bundle, os.path.join(ENGINES_FOLDER, engine.path.name)).read() == DATA  # noqa: PTH118
    assert (
        Engine.open(bundle, bundle.path / ENGINES_FOLDER / ".." / ENGINES_FOLDER / engine.path.name).read()
        == DATA
    )


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_that_leave_the_bundle_are_refused(linked, bundle, engine, tmp_path):
    path = engine.path if linked == "file" else engine.path.parent
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert "native code" in refusal(engine.read)
    assert "native code" in refusal(Engine.open, bundle, engine.path)


def test_a_bundle_that_is_a_link_is_accepted(bundle, engine, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bundle.path)
    (path,) = find_engines(Bundle.open(link))
    assert Engine.open(Bundle.open(link), path).read() == DATA


def test_links_in_a_circle_are_refused(bundle, engine):
    engine.path.unlink()
    engine.path.symlink_to(engine.path.name)
    refusal(Engine.open, bundle, engine.path)


@pytest.fixture
def stripped(bundle):
    (bundle.path / ENGINES_FOLDER).mkdir()
    (bundle.path / ENGINES_FOLDER / "weights.onnx").write_bytes(WEIGHTS)
    return write(bundle, stripped=True, weights="weights.onnx")


def test_the_weights_of_a_stripped_engine_are_read(stripped):
    assert (stripped.stripped, stripped.weights) == (True, "weights.onnx")
    assert stripped.read_weights() == WEIGHTS


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated"])
def test_damaged_weights_are_refused(damage, stripped):
    path = stripped.path.with_name("weights.onnx")
    {"missing": path.unlink, "flipped": lambda: flip(path, 3), "truncated": lambda: cut(path, 0.5)}[damage]()
    refusal(stripped.read_weights)


FITS = [
    # targets, gpu, compatibility, compute capability, runs
    (("sm86", "sm89"), None, "none", "8.6", True),
    (("sm86", "sm89"), None, "none", "8.9", True),
    (("sm86", "sm89"), None, "none", "8.0", False),
    (("sm120",), None, "none", "12.0", True),
    (("sm120",), None, "none", "1.2", False),
    ((), "8.9", "none", "8.9", True),
    ((), "8.9", "none", "8.6", False),
    ((), "8.9", "none", "12.0", False),
    ((), "8.0", "ampere_plus", "8.0", True),
    ((), "8.0", "ampere_plus", "12.1", True),
    ((), None, "ampere_plus", "9.0", True),
    ((), "8.6", "ampere_plus", "7.5", False),
    ((), "7.5", "ampere_plus", "7.5", False),
    (("sm75",), None, "ampere_plus", "7.5", False),
    ((), "8.9", "same_compute_capability", "8.9", True),
    ((), "8.9", "same_compute_capability", "8.6", False),
    ((), None, "none", "8.9", False),
]


@pytest.mark.parametrize(("targets", "gpu", "compatibility", "capability", "runs"), FITS)
def test_engines_run_on_the_gpus_they_were_built_for(targets, gpu, compatibility, capability, runs, bundle):
    built_on = None if gpu is None else BuilderGpu("NVIDIA X", gpu)
    engine = write(bundle, targets=targets, gpu=built_on, hardware_compatibility=compatibility)
    reason = engine.mismatch("rtx", "1.7.1.116", capability)
    assert (reason is None) == runs
    assert runs or capability in reason


def test_the_mismatch_names_the_gpus_an_engine_was_built_for(bundle):
    engine = write(bundle, targets=("sm86",), hardware_compatibility="ampere_plus")
    reason = engine.mismatch("rtx", "1.7.1.116", "7.5")
    assert reason == (
        "built for SM86, NVIDIA Something (8.9), compute capability 8.0 and above; "
        "expected compute capability 7.5, that of this GPU"
    )


@pytest.mark.parametrize("version", ["1.7.1.117", "1.7.1", "1.7.1.116.0", ""])
def test_only_the_exact_version_runs_it(version, engine):
    assert engine.mismatch("rtx", version, "8.9") == (
        f"built by rtx 1.7.1.116; expected {version}, the installed version"
    )


def test_only_the_same_flavor_runs_it(engine):
    assert "flavor rtx; expected tensorrt" in engine.mismatch("tensorrt", "1.7.1.116", "8.9")


def test_reading_needs_neither_tensorrt_nor_cuda_nor_onnx_runtime(engine, bundle, fresh_python):
    code = f"""
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import Engine
print(len(Engine.open(Bundle.open({str(bundle.path)!r}), {str(engine.path)!r}).read()))
"""
    outcome = fresh_python(code, blocked={"tensorrt", "tensorrt_rtx_bindings", "cuda", "onnxruntime"})
    assert (outcome.code, outcome.out) == (0, f"{len(DATA)}\n"), outcome.err
