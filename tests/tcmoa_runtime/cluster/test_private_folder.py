"""The folder of a private Ray."""

import fcntl
import shutil

import pytest

from tcmoa_runtime.cluster import private_folder


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(private_folder, "_MAX_ROOT_BYTES", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_private_for_the_time_of_its_block_and_those_of_killed_sessions_are_removed_first(root):
    for name, has_lock in (("tcmoa-ray-killed", True), ("tcmoa-ray-just-made", False)):
        (root / name).mkdir()
        if has_lock:
            (root / name / "session.lock").touch()
    with private_folder.private_folder() as first, private_folder.private_folder() as second:
        assert first.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in root.iterdir()} == {first.name, second.name, "tcmoa-ray-just-made"}
    assert [path.name for path in root.iterdir()] == ["tcmoa-ray-just-made"]


def test_one_that_another_process_takes_for_abandoned_is_made_again(root, monkeypatch):
    locked = []

    def flock(file, operation):
        fcntl.flock(file, operation)
        locked.append(file.name)
        if len(locked) == 1:  # the other process was faster
            shutil.rmtree(next(root.glob("tcmoa-ray-*")))

    monkeypatch.setattr(
        private_folder, "fcntl", type("Fcntl", (), {**vars(fcntl), "flock": staticmethod(flock)})
    )
    with private_folder.private_folder() as folder:
        assert folder.is_dir()
        assert len(locked) == 2
    assert not list(root.iterdir())
