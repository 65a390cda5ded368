"""Locks between processes, which end with their holder, and those of the outputs of streams."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tcmoa_runtime.file_lock import FileLock, LockedError, acquire_named_lock
from tcmoa_runtime.streams.output_locks import OutputLockedError, OutputLocks, check_not_locked

HOLD = """
import sys, time
from pathlib import Path
from tcmoa_runtime.file_lock import FileLock
lock = FileLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_lock_is_released_when_its_process_is_killed(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"^process {holder.pid}$"):
            FileLock.acquire(path)
        os.kill(holder.pid, signal.SIGKILL)
    lock = FileLock.acquire(path)
    assert path.read_text() == f"process {os.getpid()}"
    lock.release()
    lock.release()
    assert not path.exists()


def test_a_file_that_its_last_holder_removes_is_made_again(tmp_path, monkeypatch):
    import fcntl

    path, flock, calls = tmp_path / "lock", fcntl.flock, []

    def lock_late(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    lock = FileLock.acquire(path, role="b")
    assert (len(calls), path.read_text()) == (2, f"process {os.getpid()} (b)")
    lock.release()


def test_without_a_private_folder_nothing_is_locked(cache, caplog):
    cache.mkdir()
    (cache / "tcmoa").mkdir()
    (cache / "tcmoa").chmod(0o777)
    caplog.set_level("INFO", "tcmoa")
    assert acquire_named_lock("output rtsp://u:secret@h/x") is None
    assert "is not locked" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}/a.mkv", "{}/b/../a.mkv"),
        ("{}/a.mkv", "file://{}/a.mkv"),
        ("{}/a.mkv", "{}/link/a.mkv"),
        ("{}/b/%06d.png", "{}/link/b/%06d.png"),
        ("rtsp://u:secret@h/x", "rtsp://u:secret@h/x"),
    ],
)
def test_one_output_has_one_stream_however_it_is_named(tmp_path, first, second):
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    first, second = first.format(tmp_path), second.format(tmp_path)
    locks, others = OutputLocks("pair gate of fleet yard"), OutputLocks()
    locks.add([first])
    with pytest.raises(OutputLockedError) as caught:
        others.add([tmp_path / "other.mkv", second])
    shown = second.replace("u:secret", "***")
    assert str(caught.value) == (
        f"{shown}: is being written by process {os.getpid()} (pair gate of fleet yard); expected one stream at a "
        "time. Wait until it has ended, or choose another output."
    )
    check_not_locked([tmp_path / "other.mkv"])  # all or none
    locks.close()
    check_not_locked([second])


def test_machines_that_share_the_folders_of_a_user_do_not_lock_each_others_outputs(tmp_path, monkeypatch):
    locks, others = OutputLocks(), OutputLocks()
    locks.add([tmp_path / "a.mkv"])
    with pytest.raises(OutputLockedError):
        others.add([tmp_path / "a.mkv"])
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    others.add([tmp_path / "a.mkv"])
    others.close()
    locks.close()


def test_devices_and_pipes_have_no_locks(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    locks = OutputLocks()
    for _ in range(2):
        locks.add(["/dev/null", tmp_path / "pipe", "a\0b"])
    locks.close()
