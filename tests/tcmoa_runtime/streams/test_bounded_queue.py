"""The queue between two threads: bounded, in order, and no thread waits forever."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime.streams.bounded_queue import BoundedQueue


@given(st.integers(1, 5), st.lists(st.integers(), max_size=30))
def test_all_items_arrive_in_order(capacity, items):
    queue, received = BoundedQueue(capacity), []
    consumer = threading.Thread(target=lambda: received.extend(iter(queue.get, None)))
    consumer.start()
    assert [queue.put(item) for item in items] == [0] * len(items)
    queue.close()
    consumer.join(60)
    assert received == items


def test_with_newest_wins_the_oldest_items_are_dropped():
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


def test_put_blocks_while_the_queue_is_full():
    queue = BoundedQueue(1)
    queue.put(1)
    waiting = blocked(lambda: queue.put(2))
    assert queue.get() == 1
    waiting.join(60)
    assert not waiting.is_alive()


@pytest.mark.parametrize("full", [True, False])
def test_discard_wakes_both_threads(full):
    queue = BoundedQueue(1)
    if full:
        queue.put(1)
    waiting = blocked((lambda: queue.put(2)) if full else queue.get)
    assert queue.discard() == int(full)
    waiting.join(60)
    assert not waiting.is_alive()
    assert queue.put(3) == 1  # dropped, and counted
    assert queue.get() is None
