"""The user's folders are private, or they are not used."""

import os
import stat

import pytest

from tcmoa_runtime.user_folders import (
    UnsafeFolderError,
    open_user_folder,
    user_folder,
    write_private_file,
)

EXPECTED = "; expected a folder of your own that only you can write to"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home that is empty."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folders_are_those_of_the_platform(home, monkeypatch, tmp_path):
    assert user_folder("cache", "picks") == home / ".cache/tcmoa/picks"
    assert user_folder("data") == home / ".local/share/tcmoa"
    assert not home.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert user_folder("cache") == tmp_path / "elsewhere/tcmoa"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_folder("cache") == home / ".cache/tcmoa"  # as the XDG specification asks


def test_folders_and_files_are_for_the_user_alone(home):
    with pytest.raises(FileNotFoundError):
        open_user_folder("cache", "picks")
    mask = os.umask(0)
    try:
        folder = open_user_folder("cache", "compiled", "openvino", create=True)
        write_private_file(folder / "file", b"content")
    finally:
        os.umask(mask)
    assert folder == open_user_folder("cache", "compiled", "openvino")
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    assert mode(folder / "file") == 0o600
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("level", [".cache/tcmoa", ".cache/tcmoa/picks"])
def test_a_folder_that_others_control_is_not_used(home, level, monkeypatch):
    folder = home / level
    folder.mkdir(parents=True)

    def refusal():
        with pytest.raises(UnsafeFolderError) as caught:
            open_user_folder("cache", "picks", create=True)
        assert caught.value.filename == str(folder)
        return caught.value.strerror

    for wrong in (0o770, 0o707):
        folder.chmod(wrong)
        assert refusal() == f"has mode {wrong:04o}, so that others can write to it{EXPECTED}"
    folder.chmod(0o755)
    assert open_user_folder("cache", "picks", create=True) == home / ".cache/tcmoa/picks"
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(UnsafeFolderError, match=f"belongs to another user{EXPECTED}"):
            open_user_folder("cache", "picks")
    folder.rename(home / "moved")
    folder.symlink_to(home / "moved")
    assert refusal() == f"a symbolic link{EXPECTED}"
    folder.unlink()
    folder.write_bytes(b"")
    assert refusal() == f"not a folder{EXPECTED}"


def test_a_failed_write_leaves_nothing(home):
    folder = open_user_folder("cache", create=True)
    (folder / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_private_file(folder / "file", b"content")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_named_itself(tmp_path):
    path = tmp_path / "missing" / "file.json"
    with pytest.raises(OSError, match="No such file or directory") as caught:
        write_private_file(path, b"{}")
    assert caught.value.filename == str(path)
