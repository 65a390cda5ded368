"""What libraries load is what was checked, also where the weights are in a file of their own."""

import shutil
import stat
import tempfile
from pathlib import Path

import onnxruntime as ort
import pytest

from tcmoa_runtime import Bundle, BundleError, Fuser, InputError
from tcmoa_runtime.bundle import GRAPH, GRAPH_DATA
from tcmoa_runtime.checked_graph import checked_graph


@pytest.fixture
def split(external_data_bundle, tmp_path, monkeypatch):
    """Copy of a bundle with weights beside the graph; temporary files go to an empty folder beside it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Path(shutil.copytree(external_data_bundle, tmp_path / "split"))


@pytest.mark.parametrize("name", ["vif", "plain", "mef", "batch", "bgr", "gray", "bgr gray", "resize"])
def test_every_export_passes_the_rules_for_graphs(name, exported):
    bundle = Bundle.open(exported(name))
    assert bundle.read_graph() == bundle.graph_path.read_bytes()


def test_weights_that_are_swapped_after_the_check_are_not_loaded(split, fuser, pair, monkeypatch):
    session = ort.InferenceSession

    def swap_and_load(*arguments, **settings):
        size = (split / GRAPH_DATA).stat().st_size
        (split / GRAPH_DATA).write_bytes(bytes(size))
        return session(*arguments, **settings)

    monkeypatch.setattr(ort, "InferenceSession", swap_and_load)
    with Fuser.load(split, backend="onnxruntime") as loaded:
        assert (loaded(*pair) == fuser(*pair)).all()
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.open(split).check()


def test_the_copy_is_private_and_deleted(split, tmp_path):
    with checked_graph(Bundle.open(split)) as graph:
        assert graph.parent.parent == tmp_path / "temporary"
        assert stat.S_IMODE(graph.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((graph.parent / GRAPH_DATA).stat().st_mode) == 0o600
        assert {path.name: path.read_bytes() for path in graph.parent.iterdir()} == {
            name: (split / name).read_bytes() for name in (GRAPH, GRAPH_DATA)
        }
    assert list((tmp_path / "temporary").iterdir()) == []


def test_damaged_weights_leave_no_copy(split, tmp_path):
    data = bytearray((split / GRAPH_DATA).read_bytes())
    data[-1] ^= 1
    (split / GRAPH_DATA).write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"), checked_graph(Bundle.open(split)):
        pytest.fail("damaged weights were given to a library")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_disk_without_room_for_the_copy_is_the_users_error(split, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent/folder")
    with pytest.raises(InputError) as caught, checked_graph(Bundle.open(split)):
        pytest.fail("a copy was made in a folder that does not exist")
    assert str(caught.value) == (
        "/nonexistent/folder: cannot be written (No such file or directory); expected room for a copy of the weights, "
        "0.0 GB. Set the environment variable TMPDIR to another folder."
    )


def test_a_graph_with_its_weights_is_given_as_bytes(vif):
    with checked_graph(Bundle.open(vif)) as graph:
        assert graph == (vif / GRAPH).read_bytes()


def test_no_folder_for_temporary_files_is_the_users_error(split, monkeypatch):
    def find_none(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", find_none)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    with pytest.raises(InputError) as caught, checked_graph(Bundle.open(split)):
        pytest.fail("a copy was made where there is no folder")
    assert str(caught.value).startswith("/nowhere: cannot be written (No usable temporary directory found); ")
