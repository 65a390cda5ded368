"""Bounded hand-over between two threads of a stream: it blocks, or the oldest gives way."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """A queue of at most `depth` things from one thread to another.

    A full one makes `put` wait, or, where it is `newest_wins`, lets its oldest go.
    """

    def __init__(self, depth: int, *, newest_wins: bool = False) -> None:
        self._things: deque[T] = deque()
        self._depth, self._newest_wins = depth, newest_wins
        self._changed = threading.Condition()
        self._ended = self._abandoned = False

    def put(self, thing: T) -> int:
        """Hand over; returns how many older things gave way (`thing` itself where nobody takes any more)."""
        with self._changed:
            while len(self._things) >= self._depth and not (self._newest_wins or self._abandoned):
                self._changed.wait()
            if self._abandoned:
                return 1
            gone = 0
            while len(self._things) >= self._depth:
                self._things.popleft()
                gone += 1
            self._things.append(thing)
            self._changed.notify_all()
            return gone

    def get(self) -> T | None:
        """The oldest thing, waiting for it; None once all were taken and no more come."""
        with self._changed:
            while not (self._things or self._ended or self._abandoned):
                self._changed.wait()
            if not self._things:
                return None
            thing = self._things.popleft()
            self._changed.notify_all()
            return thing

    def end(self) -> None:
        """No more will be put; what is there can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> int:
        """Nothing will be taken any more; wakes both sides and returns how many things were thrown away."""
        with self._changed:
            self._abandoned = True
            left = len(self._things)
            self._things.clear()
            self._changed.notify_all()
            return left
