"""Prompt control by keys, in a pseudo-terminal."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
import time

import pytest

from tcmoa_runtime.streams.control import StreamControl
from tcmoa_runtime.streams.keyboard import apply_key

SCRIPT = """
import sys, threading
from tcmoa_runtime.streams.control import StreamControl
from tcmoa_runtime.streams.keyboard import Keyboard
control, on_quit = StreamControl((2, 2), size=(16, 16), ramp=0), threading.Event()
with Keyboard(control, on_quit.set):
    print("ready", flush=True)
    on_quit.wait(20)
print("alpha %.2f beta %.2f quit %s" % (*control.values(), on_quit.is_set()), flush=True)
"""


@pytest.fixture
def control():
    return StreamControl((2, 2), size=(16, 16), ramp=0)


def test_steps_back_undo_steps_exactly(control):
    for key in ("up",) * 7 + ("right",) * 3:
        assert apply_key(control, key)
    assert control.values() == pytest.approx((1.7, 0.15))
    for key in ("down",) * 7 + ("left",) * 3:
        apply_key(control, key)
    assert control.values() == (1.0, 0.0)


def test_r_resets_and_unknown_keys_do_nothing(control):
    apply_key(control, "+")
    apply_key(control, "r")
    assert control.values() == (1.0, 0.0)
    count = control.change_count
    assert not apply_key(control, "z")
    assert control.change_count == count


def test_keys_stop_at_the_maximum(control):
    for _ in range(400):
        apply_key(control, "up")
    assert control.values()[0] == 16.0


def test_keys_are_read_from_a_terminal():
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    shown = b""

    def until(text):
        nonlocal shown
        deadline = time.monotonic() + 20
        while text not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(master, 1000)

    try:
        until(b"ready")
        os.write(master, b"\x1b[A")
        time.sleep(0.1)
        os.write(master, b"+")
        os.write(master, b"q")
        until(b"quit True")
        assert b"alpha 1.20 beta 0.00" in shown
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_without_a_terminal_the_keyboard_does_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("on_quit.wait(20)", "pass")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "ready\nalpha 1.00 beta 0.00 quit False\n"
