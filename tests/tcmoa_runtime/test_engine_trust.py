"""Engines load where this user built them or says to trust them; no GPU is used."""

import os
import shutil
import stat
from contextlib import closing

import pytest

from simulated.cases import add_engine
from simulated.tensorrt_module import engine_bytes
from tcmoa_runtime import Bundle, BundleError, Fuser
from tcmoa_runtime.backends.pick import load_backend, write_pick
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.bundle_write import derive_bundle
from tcmoa_runtime.cli import run
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import engines_folder, find_engines, graph_key
from tcmoa_runtime.engine_trust import is_built_here, record_built
from tcmoa_runtime.errors import UntrustedEngineError

pytest_plugins = ["simulated.fixtures"]
pytestmark = pytest.mark.usefixtures("no_openvino")


@pytest.fixture(autouse=True)
def user_data(tmp_path, monkeypatch):
    """The user's data folder, empty: engines of a bundle are those of a stranger."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "tcmoa"


@pytest.fixture
def foreign(own, user_data):
    """A bundle with an engine that somebody else built."""
    add_engine(own)
    shutil.rmtree(user_data)
    return own


def open_engine(bundle):
    (path,) = find_engines(bundle)
    return Engine.open(bundle, path)


def refusal(bundle):
    (path,) = find_engines(bundle)
    return (
        f"{path}: this user did not build this engine, and an engine is native code; expected one that was built "
        f"here. Build it here with `tcmoa build {bundle.path}`, or load it with {{}} if you trust whoever built it."
    )


def test_a_strangers_engine_is_not_loaded(foreign, library):
    for load in (TensorRTBackend, lambda bundle: load_backend(bundle, "tensorrt")):
        with pytest.raises(UntrustedEngineError) as caught:
            load(foreign)
        assert str(caught.value) == refusal(foreign).format("trust_engines=True")
        assert caught.value.exit_code == 2
    assert library.loaded == 0


def test_auto_skips_it_with_one_line(foreign, library, caplog):
    with closing(load_backend(foreign)) as backend:
        assert backend.name == "onnxruntime (CPU)"
    assert caplog.messages == [refusal(foreign).format("trust_engines=True")]
    assert library.loaded == 0
    write_pick(foreign, {"tensorrt": 1.0, "onnxruntime": 2.0})
    with closing(load_backend(foreign)) as backend:
        assert backend.name == "onnxruntime (CPU)"
    assert len(caplog.messages) == 2


def test_it_is_loaded_where_the_user_trusts_it(foreign, library):
    for load in (
        lambda: TensorRTBackend(foreign, trust_engines=True),
        lambda: load_backend(foreign, trust_engines=True),
        lambda: load_backend(foreign, "tensorrt", trust_engines=True),
        lambda: Fuser.load(foreign.path, trust_engines=True).backend,
    ):
        with closing(load()) as backend:
            assert backend.name.startswith("tensorrt (rtx")
    assert not is_built_here(open_engine(foreign))  # the option holds for one load


def test_the_command_line_has_the_option(foreign, library, sources, tmp_path, capsys):
    command = ["fuse", str(foreign.path), *map(str, sources), "-o", str(tmp_path / "fused.png")]
    assert run([*command, "--backend", "tensorrt"]) == 2
    assert capsys.readouterr().err == f"tcmoa: error: {refusal(foreign).format('--trust-engines')}\n"
    assert run(command) == 0
    captured = capsys.readouterr()
    assert f"tcmoa: warning: {refusal(foreign).format('--trust-engines')}\n" in captured.err
    assert "onnxruntime (CPU)" in captured.out
    assert run([*command, "--trust-engines"]) == 0
    captured = capsys.readouterr()
    assert (captured.err, "tensorrt (rtx" in captured.out) == ("", True)


def test_a_trusted_engine_is_taken_before_a_better_one_that_is_not(own, user_data, library):
    add_engine(own, precision="fp16")
    shutil.rmtree(user_data)
    mine = add_engine(own, precision="bf16", data=engine_bytes(own, x={"note": "another engine"}))
    assert not is_built_here(Engine.open(own, find_engines(own)[1]))
    with closing(TensorRTBackend(own)) as backend:
        assert backend._loaded.description.path == mine.path


def test_the_record_is_private_and_names_engines_by_their_hash(foreign, user_data):
    engine = open_engine(foreign)
    folder = record_built(engine)
    assert folder == user_data / "built-engines"
    (record,) = folder.iterdir()
    assert record.name == engine.engine_entry.sha256
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert is_built_here(engine)


def test_a_stripped_engine_needs_its_weights_in_the_record(own, user_data):
    (own.path / "engines").mkdir()
    (own.path / "engines" / "weights.onnx").write_bytes(b"weights")
    engine = add_engine(own, stripped=True, weights="weights.onnx")
    names = sorted(path.name for path in (user_data / "built-engines").iterdir())
    assert names == sorted((engine.engine_entry.sha256, engine.weights_entry.sha256))
    (user_data / "built-engines" / engine.weights_entry.sha256).unlink()
    assert not is_built_here(engine)


@pytest.mark.parametrize("wrong", ["writable", "link", "pipe", "relative"])
def test_a_record_that_others_may_have_written_does_not_count(foreign, user_data, wrong, tmp_path):
    engine = open_engine(foreign)
    folder = record_built(engine)
    record = folder / engine.engine_entry.sha256
    expected = []
    private = "expected a folder of your own that only you can write to; its record of engines is not used"
    if wrong == "writable":
        folder.chmod(0o775)
        expected = [f"{folder}: has mode 0775, so that others can write to it; {private}"]
    elif wrong == "link":
        user_data.rename(tmp_path / "moved")
        user_data.symlink_to(tmp_path / "moved")
        expected = [f"{user_data}: a symbolic link; {private}"]
    elif wrong == "pipe":
        record.unlink()
        os.mkfifo(record)
    else:
        record.unlink()
    if expected:
        with pytest.warns(RuntimeWarning) as caught:
            assert not is_built_here(engine)
        assert [str(warning.message) for warning in caught] == expected
    else:
        assert not is_built_here(engine)


def test_a_record_that_cannot_be_written_is_a_warning(foreign, user_data):
    engine = open_engine(foreign)
    user_data.parent.mkdir(exist_ok=True)
    user_data.write_text("in the way")
    with pytest.warns(RuntimeWarning) as caught:
        assert record_built(engine) is None
    assert [str(warning.message) for warning in caught] == [
        f"{user_data}: not a folder; expected a folder of your own that only you can write to; the engine is loaded "
        f"only where it is trusted by option"
    ]


def test_engines_as_a_link_is_refused_before_anything_is_written(own, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (own.path / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError) as caught:
        add_engine(own)
    assert str(caught.value) == (
        f"{own.path / 'engines'}: a symbolic link; expected a folder of the bundle, as engines run as native code. "
        f"Remove the link."
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_derived_bundle_has_the_engines_but_nothing_that_leads_out(own, tmp_path):
    engine = add_engine(own)
    folder = own.path / "engines"
    (tmp_path / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(folder / "pipe.json")
    (folder / "pick.json.txt").write_text("")
    (folder / "openvino-2026").mkdir()
    prompt = {"prompt_default": {"scale": 1.0, "shift": 0.5}}
    derived = derive_bundle(own, tmp_path / "derived", prompt)
    names = sorted(path.name for path in (derived.path / "engines").iterdir())
    assert names == sorted([engine.path.name, engine.path.with_suffix(".json").name])
    assert is_built_here(open_engine(derived))
    shutil.move(folder, tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert not (derive_bundle(own, tmp_path / "other", prompt).path / "engines").exists()


def test_engines_of_an_installed_bundle_are_in_the_users_data_folder(own, user_data, library, monkeypatch):
    from tcmoa_runtime import engine_folders

    assert engines_folder(own) == own.path / "engines"
    monkeypatch.setattr(engine_folders, "__file__", str(own.path.parent / "engine_folders.py"))
    engine = add_engine(own)
    assert engine.path.parent == user_data / "engines" / graph_key(own)
    assert stat.S_IMODE(engine.path.parent.stat().st_mode) == 0o700
    assert not (own.path / "engines").exists()
    assert find_engines(own) == [engine.path]
    with closing(TensorRTBackend(own)) as backend:
        assert backend._loaded.description.path == engine.path
    copy = Bundle.open(shutil.copytree(own.path, own.path.parent / "copy"))
    assert find_engines(copy) == [engine.path]
    engine.path.parent.chmod(0o777)
    with pytest.warns(RuntimeWarning, match=r"has mode 0777.*; engines in it are not used"):
        assert find_engines(own) == []
