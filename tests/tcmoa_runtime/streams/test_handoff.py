"""Hand-over between threads: bounded, in order, and nobody waits for ever."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime.streams.handoff import Handoff


@given(st.integers(1, 5), st.lists(st.integers(), max_size=30))
def test_everything_comes_through_in_order(depth, things):
    handoff, got = Handoff(depth), []
    taking = threading.Thread(target=lambda: got.extend(iter(handoff.get, None)))
    taking.start()
    assert [handoff.put(thing) for thing in things] == [0] * len(things)
    handoff.end()
    taking.join(10)
    assert got == things


def test_newest_wins_keeps_the_newest():
    handoff = Handoff(2, newest_wins=True)
    assert [handoff.put(i) for i in range(5)] == [0, 0, 1, 1, 1]
    handoff.end()
    assert [handoff.get(), handoff.get(), handoff.get()] == [3, 4, None]


def blocked(call):
    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    return thread


def test_a_full_one_makes_put_wait_until_there_is_room():
    handoff = Handoff(1)
    handoff.put(1)
    waiting = blocked(lambda: handoff.put(2))
    assert handoff.get() == 1
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.parametrize("full", [True, False])
def test_abandoning_wakes_both_sides(full):
    handoff = Handoff(1)
    if full:
        handoff.put(1)
    waiting = blocked((lambda: handoff.put(2)) if full else handoff.get)
    assert handoff.abandon() == int(full)
    waiting.join(5)
    assert not waiting.is_alive()
    assert handoff.put(3) == 1  # thrown away, and said so
    assert handoff.get() is None
