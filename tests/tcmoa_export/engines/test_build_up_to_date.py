"""When an engine is built again, whose it is, and builds that are interrupted."""

import json
import shutil
import signal

import pytest

import engine_pieces
from build_pieces import FP16, STEM, VERSION, build_and_listen, build_with, flip, names_in, state, truncate
from engine_pieces import SIZE
from micro_model import scrambled
from raised_signals import raise_handled
from tcmoa import Sizes
from tcmoa_export.engines import plan
from tcmoa_export.engines.build import build_engine
from tcmoa_runtime import Bundle, BundleError
from tcmoa_runtime.engine import Engine
from tcmoa_runtime.engine_folders import ENGINES_FOLDER, find_engines
from tcmoa_runtime.engine_trust import is_built_here
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256


def test_an_engine_that_is_up_to_date_is_kept(built, no_build):
    before = state(build_engine(built))
    engine, lines = build_and_listen(str(built.path), precision="fp16")
    assert lines == ["up to date"]
    assert state(engine) == before
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


@pytest.mark.usefixtures("remembered_builds")
def test_rebuild_always_builds(built):
    before = state(build_engine(built))
    engine, lines = build_and_listen(built, rebuild=True)
    assert lines[-1] == "building the engine"
    assert state(engine)[0][:2] != before[0][:2]


@pytest.mark.usefixtures("remembered_builds")
@pytest.mark.parametrize("options", [{"workspace_mb": 2000}, {"timing_cache": False}], ids=str)
def test_another_option_replaces_the_engine(built, options):
    before = state(build_engine(built))
    engine, lines = build_and_listen(built, **options)
    assert lines[-1] == "building the engine"
    assert state(engine) != before
    assert build_and_listen(built, **options)[1] == ["up to date"]
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


@pytest.mark.usefixtures("remembered_builds")
def test_another_version_of_this_builder_rebuilds(built, monkeypatch):
    monkeypatch.setattr(plan, "BUILDER_VERSION", plan.BUILDER_VERSION + 1)
    assert build_and_listen(built)[1][-1] == "building the engine"


def test_another_graph_rebuilds(built, tmp_path):
    """As when a bundle is exported into a folder that has engines."""
    other = scrambled(Sizes(64, 2, 2, 64, 2, 2), seed=1)
    engine_pieces.export_unchecked(other, tmp_path / "other", size=SIZE)
    for name in ("bundle.json", "fusion.onnx"):
        shutil.copy(tmp_path / "other" / name, built.path / name)
    with pytest.raises(BundleError, match="with the same bytes"):
        Engine.open(Bundle.open(built.path), built.path / ENGINES_FOLDER / FP16)
    engine, lines = build_and_listen(built.path)
    assert lines[-1] == "building the engine"
    assert Engine.open(Bundle.open(built.path), engine.path).read()


@pytest.mark.usefixtures("remembered_builds")
def test_targets_name_the_engine(built):
    before = state(build_engine(built))
    engine, lines = build_and_listen(built, targets=("sm89", "sm86", "sm89"))
    assert lines[-1] == "building the engine"
    assert (engine.targets, engine.path.name) == (("sm86", "sm89"), f"rtx-{VERSION}-sm86+sm89-fp16.engine")
    assert len(find_engines(built)) == 2
    same, lines = build_and_listen(built, targets=("sm86", "sm89"))
    assert (same.path, lines) == (engine.path, ["up to date"])
    assert state(build_engine(built)) == before
    assert engine.mismatch("rtx", VERSION, "8.9") is None
    assert "compute capability 8.0" in engine.mismatch("rtx", VERSION, "8.0")


def edit(path):
    """Change an option and the hash: as made by other software."""
    values = json.loads(path.read_bytes())
    values["options"]["key"] = "0" * 64
    values[SELF_HASH] = manifest_sha256(values)
    path.write_text(json.dumps(values))


def empty_options(path):
    values = json.loads(path.read_bytes())
    values["options"] = {}
    values[SELF_HASH] = manifest_sha256(values)
    path.write_text(json.dumps(values))


@pytest.mark.usefixtures("remembered_builds")
@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".engine", truncate),
        (".engine", flip),
        (".json", truncate),
        (".json", flip),
        (".json", edit),
        (".json", empty_options),
        (".json", lambda path: path.unlink()),
        (".json", lambda path: path.write_text("{}")),
    ],
)
def test_a_damaged_engine_is_rebuilt(built, suffix, damage):
    damage((built.path / ENGINES_FOLDER / FP16).with_suffix(suffix))
    engine, lines = build_and_listen(built)
    assert lines[-1] == "building the engine"
    assert Engine.open(built, engine.path).read()
    assert names_in(built) == [FP16, f"{STEM}-fp16.json"]


def test_an_engine_is_recorded_as_built_by_this_user(built):
    engine = build_engine(built)
    assert is_built_here(engine)


@pytest.mark.usefixtures("remembered_builds")
def test_an_engine_that_somebody_else_built_is_built_again(bundle, tmp_path, monkeypatch):
    before = build_with(bundle)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert not is_built_here(before)
    engine, lines = build_and_listen(bundle)
    assert lines[-1] == "building the engine"
    assert is_built_here(engine)
    assert build_and_listen(bundle)[1] == ["up to date"]


def test_progress_reports_phases_and_their_steps(bundle):
    calls = []
    build_with(bundle, on_progress=lambda *call: calls.append(call))
    assert len(calls) > 5
    assert all(isinstance(name, str) and name and 0 <= done <= of for name, done, of in calls)
    assert any(done for _, done, _ in calls)


def test_ctrl_c_in_the_middle_of_a_build_leaves_nothing(bundle):
    before = signal.getsignal(signal.SIGINT)
    steps = []

    def press(_name, done, _of):
        steps.append(done)
        if steps.count(1) == 1 and done == 1:
            raise_handled(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_with(bundle, on_progress=press)
    assert names_in(bundle) == []
    assert signal.getsignal(signal.SIGINT) is before
    whole = []
    assert build_with(bundle, on_progress=lambda _name, done, _of: whole.append(done)).read()
    assert 1 in steps
    assert len(steps) < len(whole) / 10  # it stopped early


def test_ctrl_c_keeps_an_existing_engine(built):
    before = state(build_engine(built))
    with pytest.raises(KeyboardInterrupt):
        build_with(built, rebuild=True, on_progress=lambda *_: raise_handled(signal.SIGINT))
    assert state(Engine.open(built, built.path / ENGINES_FOLDER / FP16)) == before


def test_a_progress_function_that_fails_ends_the_build_with_its_own_exception(bundle, capfd):
    def fail(*_):
        raise RuntimeError("the bar is broken")

    with pytest.raises(RuntimeError, match="the bar is broken"):
        build_with(bundle, on_progress=fail)
    assert names_in(bundle) == []
    assert capfd.readouterr() == ("", "")  # otherwise the bindings would have printed it
