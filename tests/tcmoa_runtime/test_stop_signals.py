"""Commands that SIGTERM and SIGHUP end: exit code, one line, and no temporary files."""

import ctypes
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from micro_model import frames
from raised_signals import native_handler, raise_handled
from tcmoa_runtime import bundle_write, stop_signals
from tcmoa_runtime.images import write_image
from tcmoa_runtime.stop_signals import STOP_SIGNALS, handled_stop_signals, interrupted_by_signals

ENDINGS = {
    signal.SIGINT: (130, "tcmoa: interrupted"),
    signal.SIGTERM: (143, "tcmoa: interrupted by SIGTERM"),
    signal.SIGHUP: (129, "tcmoa: interrupted by SIGHUP"),
}


@pytest.fixture
def pairs(tmp_path):
    """Folder of four pairs of the bundles' size."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number, (x, y) in enumerate(
        zip(frames(100, 130, 4, seed=5), frames(100, 130, 4, seed=6), strict=True)
    ):
        write_image(folder / f"{number}_x.png", x)
        write_image(folder / f"{number}_y.png", y)
    return folder


@pytest.mark.parametrize(
    ("number", "command"),
    [
        (signal.SIGTERM, "export --weights nano --task vif --size 32x32 --out {out}"),
        (signal.SIGHUP, "export --weights nano --task vif --size 32x32 --out {bundle} --overwrite"),
        (signal.SIGTERM, "calibrate int8 {bundle} --pairs {pairs} --out {out} --max-pairs 4"),
    ],
    ids=["export", "export --overwrite", "calibrate"],
)
def test_a_bundle_half_written_is_removed(number, command, tcmoa, broken, pairs, tmp_path, tree, monkeypatch):
    """`broken` is a copy of a bundle; the signal comes when the graph is written but not the manifest."""
    before = tree(tmp_path)
    written = []

    def manifest_sha256(_manifest):
        written.extend(path for path in tree(tmp_path) if path.name == "fusion.onnx")
        raise_handled(number)

    monkeypatch.setattr(bundle_write, "manifest_sha256", manifest_sha256)
    words = command.split()
    outcome = tcmoa(
        *(word.format(bundle=broken, pairs=pairs, out=tmp_path / "new" / "out") for word in words)
    )
    code, line = ENDINGS[number]
    assert (outcome.code, outcome.out, outcome.err.splitlines()[-1]) == (code, "", line)
    assert any(path.parent.name.endswith(".partial") for path in written)
    kept = {tmp_path / "new": None} if command.startswith("calibrate") else {}  # with a file to resume from
    assert {
        path: data for path, data in tree(tmp_path).items() if path.suffix != ".calibration"
    } == before | kept


def test_an_export_that_the_system_ends_leaves_nothing(tmp_path):
    """As systemd does: SIGTERM at any moment, here twice, while the graph is compared with the model."""
    command = [Path(sys.executable).with_name("tcmoa"), "export", "--weights", "nano", "--task", "vif"]
    process = subprocess.Popen(
        [*command, "--size", "128x96", "--out", tmp_path / "bundle"], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.terminate()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (143, "tcmoa: interrupted by SIGTERM")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_terminal_ends_a_command_in_order(tmp_path):
    """Writing to it fails from then on."""
    code = f"""
import os, signal, sys
from pathlib import Path
from tcmoa_runtime import cli
from tcmoa_runtime.partial import partial_file
def app(**_):
    with partial_file(Path({str(tmp_path)!r}) / "file"):
        print("ready", flush=True)
        try:
            signal.pause()
        finally:
            print("writing to the terminal", flush=True)
cli.make_app = lambda arguments: app
sys.argv = ["tcmoa", "export"]
cli.main()
"""
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(side)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert process.wait(60) == 129
    assert list(tmp_path.iterdir()) == []


def test_a_signal_without_handler_fails_a_test_and_not_its_process():
    with pytest.raises(AssertionError, match=r"SIGTERM: Handlers\.SIG_DFL|SIGTERM: 0"):
        raise_handled(signal.SIGTERM)


LIBC = ctypes.CDLL(None)
C_HANDLER = ctypes.cast(LIBC.abs, ctypes.c_void_p).value
"""A handler that Python does not know: takes the signal's number, and does nothing."""


@pytest.fixture
def c_handler():
    """Set the handler of SIGHUP as a C library does."""
    set_handler = LIBC.signal
    set_handler.argtypes, set_handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = set_handler(signal.SIGHUP, C_HANDLER)
    yield
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    set_handler(signal.SIGHUP, before)


def test_a_signal_that_a_c_library_took_over_fails_a_test_and_names_the_library(c_handler):
    with stop_signals.kept_handlers([signal.SIGHUP]):
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
        LIBC.signal(signal.SIGHUP, C_HANDLER)
        with pytest.raises(AssertionError, match=r"SIGHUP: a handler of .*libc\."):
            raise_handled(signal.SIGHUP)


@pytest.mark.parametrize("known", [signal.SIG_DFL, None], ids=["set after Python started", "set before"])
def test_a_handler_of_a_c_library_is_replaced_and_restored(known, c_handler, monkeypatch):
    get_handler = signal.getsignal
    assert native_handler(signal.SIGHUP) == C_HANDLER
    with monkeypatch.context() as patch:
        patch.setattr(
            signal, "getsignal", lambda number: known if number == signal.SIGHUP else get_handler(number)
        )
        seen = []
        with handled_stop_signals(seen.append):
            signal.raise_signal(signal.SIGHUP)
        assert seen == [signal.SIGHUP]
    assert native_handler(signal.SIGHUP) == C_HANDLER
    signal.raise_signal(signal.SIGHUP)  # does nothing
    assert seen == [signal.SIGHUP]


def test_signals_that_a_process_ignores_stay_ignored():
    """`nohup` makes a process ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals() as interruption:
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not interruption.is_raised


def test_a_repeated_signal_does_not_interrupt_the_cleaning(monkeypatch):
    with interrupted_by_signals() as interruption:
        with pytest.raises(KeyboardInterrupt):
            raise_handled(signal.SIGTERM)
        raise_handled(signal.SIGINT)
        raise_handled(signal.SIGTERM)
        monkeypatch.setattr(stop_signals, "REPEAT_S", 0.0)
        with pytest.raises(KeyboardInterrupt):  # much later
            raise_handled(signal.SIGINT)
    assert (interruption.exit_code, interruption.message) == (143, "interrupted by SIGTERM")


def test_handlers_are_restored_and_inner_signals_are_known_outside():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    seen = []
    with interrupted_by_signals() as interruption, handled_stop_signals(seen.append):
        raise_handled(signal.SIGHUP)
    assert seen == [signal.SIGHUP]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    assert (interruption.exit_code, interruption.is_raised) == (129, False)


def test_other_threads_leave_the_handlers_alone():
    seen = []

    def look():
        with handled_stop_signals(seen.append):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    thread.join()
    assert seen == [before]
