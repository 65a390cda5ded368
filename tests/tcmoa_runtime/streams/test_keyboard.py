"""Prompt control by keys, in a pseudo-terminal."""

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios

import pytest

from tcmoa_runtime.streams.control import StreamControl
from tcmoa_runtime.streams.keyboard import apply_key, split_keys

SCRIPT = """
import sys, threading
from tcmoa_runtime.streams.control import StreamControl
from tcmoa_runtime.streams.keyboard import Keyboard
control, on_quit = StreamControl((2, 2), size=(16, 16), ramp=0), threading.Event()
with Keyboard(control, on_quit.set):
    print("ready", flush=True)
    on_quit.wait(60)
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


def test_keys_that_are_read_at_once_or_in_parts_are_split():
    """Keys of a held arrow come together where the process is busy."""
    assert split_keys("\x1b[A\x1b[A+\x1b[Dq") == (["up", "up", "+", "left", "q"], "")
    for cut in range(1, 3):
        first, rest = split_keys("+\x1b[C"[: cut + 1])
        assert (first, split_keys(rest + "+\x1b[C"[cut + 1 :])[0]) == (["+"], ["right"])
    assert split_keys("\x1bq") == (["\x1b", "q"], "")


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
        while text not in shown:
            assert select.select([master], [], [], 60)[0], shown
            shown += os.read(master, 1000)

    try:
        until(b"ready")
        os.write(master, b"\x1b[A+q")
        until(b"quit True")
        assert b"alpha 1.20 beta 0.00" in shown
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_without_a_terminal_the_keyboard_does_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("on_quit.wait(60)", "pass")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "ready\nalpha 1.00 beta 0.00 quit False\n"
