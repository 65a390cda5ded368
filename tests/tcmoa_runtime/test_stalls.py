"""Child processes that owe a reply and do nothing: stopped, or blocked."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tcmoa_runtime import stalls
from tcmoa_runtime.bench.worker import Worker
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.stalls import stall_watch


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    monkeypatch.setattr(stalls, "MAX_IDLE_S", 0.4)
    monkeypatch.setattr(stalls, "_POLL_S", 0.05)


@pytest.mark.parametrize("script", ["kill -STOP $$", "exec sleep 60"])
def test_a_process_that_does_nothing_is_ended(script):
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    with stall_watch(process) as watch:
        assert process.stdout.read() == b""
    assert watch.has_ended_it
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def test_a_process_that_works_is_left_alone(monkeypatch):
    monkeypatch.setattr(stalls, "MAX_IDLE_S", 0.8)
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    with stall_watch(process) as watch:
        time.sleep(1.2)
    assert not watch.has_ended_it
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_stopped_benchmark_ends_in_one_error():
    with Worker("onnxruntime", ["cat"]) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(TcmoaError) as caught:
            worker.load()
    assert str(caught.value) == (
        "onnxruntime: its process used no processor time for 0.4 s, so it was ended; expected a reply"
    )
