"""Hand-over between threads: bounded, in order, and nobody waits for ever."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime.streams.bounded_queue import BoundedQueue


@given(st.integers(1, 5), st.lists(st.integers(), max_size=30))
def test_everything_comes_through_in_order(depth, things):
    queue, got = BoundedQueue(depth), []
    taking = threading.Thread(target=lambda: got.extend(iter(queue.get, None)))
    taking.start()
    assert [queue.put(thing) for thing in things] == [0] * len(things)
    queue.close()
    taking.join(10)
    assert got == things


def test_newest_wins_keeps_the_newest():
    queue = BoundedQueue(2, newest_wins=True)
    assert [queue.put(i) for i in range(5)] == [0, 0, 1, 1, 1]
    queue.close()
    assert [queue.get(), queue.get(), queue.get()] == [3, 4, None]


def blocked(call):
    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    return thread


def test_a_full_one_makes_put_wait_until_there_is_room():
    queue = BoundedQueue(1)
    queue.put(1)
    waiting = blocked(lambda: queue.put(2))
    assert queue.get() == 1
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.parametrize("full", [True, False])
def test_abandoning_wakes_both_sides(full):
    queue = BoundedQueue(1)
    if full:
        queue.put(1)
    waiting = blocked((lambda: queue.put(2)) if full else queue.get)
    assert queue.discard() == int(full)
    waiting.join(5)
    assert not waiting.is_alive()
    assert queue.put(3) == 1  # thrown away, and said so
    assert queue.get() is None
