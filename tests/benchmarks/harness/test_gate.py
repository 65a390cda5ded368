"""Which samples count."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from harness.gate import (
    FOREIGN_ALLOWANCE_S,
    Usage,
    allowed_seconds,
    foreign_seconds,
    is_quiet,
    parse_busy,
    parse_own,
    usage,
)

STAT = "cpu  100 20 30 4000 500 6 7 80 9 1\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def moments(wall, busy, own):
    return Usage(5.0, 50.0, 3.0), Usage(5.0 + wall, 50.0 + busy, 3.0 + own)


def test_a_sample_counts_up_to_thirty_milliseconds_or_six_percent():
    assert allowed_seconds(0.1) == allowed_seconds(0.5) == FOREIGN_ALLOWANCE_S
    assert allowed_seconds(2.0) == pytest.approx(0.12)
    assert is_quiet(*moments(0.1, 0.229, 0.2))
    assert not is_quiet(*moments(0.1, 0.231, 0.2))
    assert is_quiet(*moments(2.0, 4.11, 4.0))
    assert not is_quiet(*moments(2.0, 4.13, 4.0))


def test_foreign_time_is_busy_time_of_other_processes():
    assert foreign_seconds(*moments(1.0, 2.0, 0.5)) == pytest.approx(1.5)
    # Two clocks of ticks need not agree to the last one.
    assert foreign_seconds(*moments(1.0, 1.98, 2.0)) == 0


def test_busy_time_includes_stolen_time_but_not_idle_and_waiting():
    assert parse_busy(STAT, 100) == pytest.approx((100 + 20 + 30 + 6 + 7 + 80) / 100)


def test_a_process_may_have_any_name():
    fields = " ".join(str(i) for i in range(3, 53))
    assert parse_own(f"42 (a) (b c) {fields}", 100) == pytest.approx((14 + 15) / 100)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="there is no /proc: Linux runs this")
def test_the_time_of_this_process_is_counted():
    before = usage(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = usage(os.getpid())
    assert after.own - before.own >= 0.08
    assert after.wall > before.wall
    assert after.busy >= before.busy


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="there is no /proc: Linux runs this")
def test_the_time_of_finished_children_is_counted():
    before = usage(None)
    subprocess.run(["/bin/sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"], check=True)
    assert usage(None).own > before.own
