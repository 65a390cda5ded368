"""Locks between processes, which end with their holder, and those of the outputs of streams."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tcmoa_runtime import file_lock
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
        ("rtsp://u:secret@h/x", "RTSP://u:secret@h/x"),
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


def test_outputs_that_the_caller_has_locked_are_not_locked_again(tmp_path):
    callers, others = OutputLocks("pair gate"), OutputLocks()
    locks = OutputLocks(held=callers)
    callers.add(["udp://h:1"])
    locks.add(["udp://h:1", tmp_path / "a.mkv"])
    for output in ("udp://h:1", str(tmp_path / "a.mkv")):
        with pytest.raises(OutputLockedError, match="is being written by process"):
            others.add([output])
    locks.close()
    check_not_locked([tmp_path / "a.mkv"])
    with pytest.raises(OutputLockedError, match=r"pair gate"):
        others.add(["udp://h:1"])
    callers.close()
    locks.add(["udp://h:1"])
    with pytest.raises(OutputLockedError):
        callers.add(["udp://h:1"])
    locks.close()


def test_machines_that_share_the_folders_of_a_user_do_not_lock_each_others_outputs(tmp_path, monkeypatch):
    locks, others = OutputLocks(), OutputLocks()
    locks.add([tmp_path / "a.mkv"])
    with pytest.raises(OutputLockedError):
        others.add([tmp_path / "a.mkv"])
    monkeypatch.setattr(socket, "gethostname", lambda: "another-machine")
    others.add([tmp_path / "a.mkv"])
    others.close()
    locks.close()


@pytest.fixture
def left():
    """Function that makes the file of a lock as a killed process leaves it, locked so many hours ago."""

    def make(name, hours):
        lock = acquire_named_lock(name)
        os.close(lock._descriptor)
        os.utime(lock.path, (then := time.time() - 3600 * hours, then))
        return lock.path

    return make


def test_files_that_killed_processes_have_left_are_removed_after_a_day(left):
    young, old = left("output young", 23), [left(f"output {i}", 25) for i in range(3)]
    held = acquire_named_lock("output held")
    assert (young.exists(), [path.exists() for path in old]) == (True, [False, False, False])
    os.utime(held.path, (0, 0))
    other = acquire_named_lock("output other")
    assert {path.name for path in young.parent.iterdir()} == {
        "gate",
        *(path.name for path in (young, held.path, other.path)),
    }
    with pytest.raises(LockedError, match=f"^process {os.getpid()}$"):
        acquire_named_lock("output held")
    for lock in (held, other):
        lock.release()


def test_few_files_are_looked_at_but_all_of_them_in_the_end(left, monkeypatch):
    paths = [left(f"output {i}", 0) for i in range(12)]
    for path in paths:
        os.utime(path, (0, 0))
    monkeypatch.setattr(file_lock, "_MAX_CHECKED", 4)
    for num_left in (8, 4, 0):
        acquire_named_lock("output x").release()
        assert sum(path.exists() for path in paths) == num_left


def test_a_lock_whose_file_is_being_removed_is_acquired(left, monkeypatch):
    """The remover has it locked for a moment, which is not to look like a holder."""
    path, flock, others = left("output a", 25), fcntl.flock, []

    def lock_slowly(descriptor, operation):
        flock(descriptor, operation)
        if not others and os.path.samestat(os.fstat(descriptor), path.stat()):
            thread = threading.Thread(target=lambda: others.append(acquire_named_lock("output a")))
            others.append(thread)
            thread.start()
            thread.join(0.2)

    monkeypatch.setattr(fcntl, "flock", lock_slowly)
    lock = acquire_named_lock("output b")
    others[0].join()
    monkeypatch.undo()
    assert others[1].path == path
    assert path.read_text() == f"process {os.getpid()}"
    for each in (lock, others[1]):
        each.release()


def test_devices_and_pipes_have_no_locks(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    locks = OutputLocks()
    for _ in range(2):
        locks.add(["/dev/null", tmp_path / "pipe", "a\0b"])
    locks.close()
