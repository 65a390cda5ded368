"""Keys of the terminal steer the stream, in a real terminal of its own."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
import time

import pytest

from tcmoa_runtime.streams.control import PromptControl
from tcmoa_runtime.streams.keyboard import steer

SCRIPT = """
import sys, threading
from tcmoa_runtime.streams.control import PromptControl
from tcmoa_runtime.streams.keyboard import Keyboard
control, quit_ = PromptControl((2, 2), size=(16, 16), ramp=0), threading.Event()
with Keyboard(control, quit_.set):
    print("ready", flush=True)
    quit_.wait(20)
print("alpha %.2f beta %.2f quit %s" % (*control.values(), quit_.is_set()), flush=True)
"""


@pytest.fixture
def control():
    return PromptControl((2, 2), size=(16, 16), ramp=0)


def test_keys_step_and_steps_back_undo_them_exactly(control):
    for key in ("up",) * 7 + ("right",) * 3:
        assert steer(control, key)
    assert control.values() == pytest.approx((1.7, 0.15))
    for key in ("down",) * 7 + ("left",) * 3:
        steer(control, key)
    assert control.values() == (1.0, 0.0)


def test_r_resets_and_other_keys_do_nothing(control):
    steer(control, "+")
    steer(control, "r")
    assert control.values() == (1.0, 0.0)
    changes = control.changes
    assert not steer(control, "z")
    assert control.changes == changes


def test_keys_stop_at_the_largest_values(control):
    for _ in range(400):
        steer(control, "up")
    assert control.values()[0] == 16.0


def test_in_a_terminal():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""

    def until(text):
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(ours, 1000)

    try:
        until(b"ready")
        os.write(ours, b"\x1b[A")
        time.sleep(0.1)
        os.write(ours, b"+")
        os.write(ours, b"q")
        until(b"quit True")
        assert b"alpha 1.20 beta 0.00" in shown
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_without_a_terminal_it_does_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("quit_.wait(20)", "pass")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "ready\nalpha 1.00 beta 0.00 quit False\n"
