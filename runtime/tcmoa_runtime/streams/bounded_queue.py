"""Bounded queue between two threads of a stream."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A queue of at most `capacity` items from one thread to another.

    When the queue is full, `put` blocks. With `newest_wins` it drops the oldest item instead.
    """

    def __init__(self, capacity: int, *, newest_wins: bool = False) -> None:
        self._items: deque[T] = deque()
        self._capacity, self._newest_wins = capacity, newest_wins
        self._changed = threading.Condition()
        self._closed = self._discarded = False

    def put(self, item: T) -> int:
        """Append an item.

        Returns:
            The number of items dropped: older ones, or `item` itself after `discard`.
        """
        with self._changed:
            while len(self._items) >= self._capacity and not (self._newest_wins or self._discarded):
                self._changed.wait()
            if self._discarded:
                return 1
            dropped = 0
            while len(self._items) >= self._capacity:
                self._items.popleft()
                dropped += 1
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def get(self) -> T | None:
        """Remove and return the oldest item; block until there is one.

        Returns:
            The item, or None when the queue is empty and was closed or discarded.
        """
        with self._changed:
            while not (self._items or self._closed or self._discarded):
                self._changed.wait()
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Announce that no more items follow; the items in the queue can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> int:
        """Drop all items, now and later, and wake both threads.

        Returns:
            The number of items dropped.
        """
        with self._changed:
            self._discarded = True
            dropped = len(self._items)
            self._items.clear()
            self._changed.notify_all()
            return dropped
