"""Files under a temporary name: renamed when complete, removed otherwise, with the permissions of new files."""

import os
import stat
import threading

import pytest

from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.partial import partial_file, partial_folder


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    old = os.umask(umask)
    try:
        with partial_file(tmp_path / "file") as partial:
            partial.write_text("whole")
        with partial_folder(tmp_path / "folder") as partial:
            partial.rename(tmp_path / "folder")
    finally:
        os.umask(old)
    assert (mode(tmp_path / "file"), mode(tmp_path / "folder")) == (0o666 & ~umask, 0o777 & ~umask)


def test_files_of_other_threads_keep_their_permissions(tmp_path):
    """Reading the umask needs setting it, for all threads."""
    is_done = threading.Event()

    def write():
        for number in range(300):
            write_bytes(tmp_path / f"ours-{number}", b"")
        is_done.set()

    thread = threading.Thread(target=write)
    thread.start()
    modes, number = set(), 0
    while not is_done.is_set():
        path = tmp_path / f"theirs-{number}"
        path.touch()
        modes.add(mode(path))
        number += 1
    thread.join()
    assert len(modes) == 1
    assert mode(tmp_path / "ours-0") in modes


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_exception_nothing_is_left_and_the_target_is_unchanged(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")

    def write_half(path):
        path.write_text("half")
        raise error

    with pytest.raises(error), partial_file(target) as partial:
        write_half(partial)
    with pytest.raises(error), partial_folder(tmp_path / "new" / "deep" / "folder") as partial:
        write_half(partial / "file")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_names_may_be_as_long_as_the_system_allows(tmp_path):
    target = tmp_path / ("ä" * 125 + "xxxxx")
    write_bytes(target, b"whole")
    assert target.read_bytes() == b"whole"
