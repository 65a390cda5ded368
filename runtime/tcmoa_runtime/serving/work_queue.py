"""A bounded queue in front of the threads that fuse: what does not fit is refused, what is late never begins."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, TypeVar

from tcmoa_runtime.web.refusal import RefusedError

MAX_RETRY_SECONDS: Final = 60
_SMOOTHING: Final = 0.2
"""Weight of the last run in the mean duration of runs, from which Retry-After is estimated."""

ResultT = TypeVar("ResultT")


class ClientGoneError(Exception):
    """The client has closed the connection while its request waited."""


class WorkQueue:
    """Runs functions on a fixed number of threads, first come, first served.

    All methods belong to the event loop's thread.

    Attributes:
        num_waiting: Requests that are being read or wait for a thread.
        num_running: Functions that run.
        is_closed: Whether requests are refused.
    """

    def __init__(self, concurrency: int, max_waiting: int) -> None:
        """Start no thread yet.

        Args:
            concurrency: Number of threads.
            max_waiting: Requests that may wait in all.
        """
        self.num_waiting = self.num_running = 0
        self._concurrency, self._max_waiting = concurrency, max_waiting
        self.is_closed = self._is_shut_down = False
        self._mean_seconds = 0.0
        self._turns = asyncio.Semaphore(concurrency)
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="tcmoa-serve")
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place in the queue, before the body of a request is read.

        Raises:
            RefusedError: 503: the queue is full, or the service stops.
        """
        if self.is_closed:
            raise _stopping()
        if self.num_waiting + self.num_running >= self._concurrency + self._max_waiting:
            seconds = self.retry_seconds()
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"queue: {self.num_waiting} requests wait, which is the maximum. Try again in {seconds} s.",
                {"Retry-After": str(seconds)},
            )
        self.num_waiting += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_waiting -= 1
            self._check_idle()

    async def run(
        self, function: Callable[[], ResultT], max_wait: float, wait_until_gone: Callable[[], Awaitable[None]]
    ) -> ResultT:
        """Run a function on a thread, in its turn; the caller holds a place.

        Args:
            function: What to run. Once begun, it ends, even if the caller does not wait for it.
            max_wait: Seconds that it may wait for its turn.
            wait_until_gone: Returns when the client is gone; called only if the function has to wait.

        Raises:
            RefusedError: 504: its turn did not come in time. 503: it came after `shutdown`.
            ClientGoneError: The client has gone before its turn.
        """
        await self._wait_for_turn(max_wait, wait_until_gone)
        if self._is_shut_down:
            self._turns.release()
            raise _stopping()
        start = time.perf_counter()
        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        except BaseException:  # e.g. the system starts no more threads
            self._turns.release()
            raise
        self.num_waiting, self.num_running = self.num_waiting - 1, self.num_running + 1
        future.add_done_callback(lambda _: self._end_run(start))
        try:
            return await asyncio.shield(future)
        finally:
            self.num_waiting += 1  # the place, which its holder gives back

    def retry_seconds(self) -> int:
        """Estimate in how many seconds there is a place again."""
        seconds = self._mean_seconds * (self.num_waiting + 1) / self._concurrency
        return min(max(1, math.ceil(seconds)), MAX_RETRY_SECONDS)

    def close(self) -> None:
        """Refuse requests from now on; those that have a place are done."""
        self.is_closed = True

    async def wait_idle(self) -> None:
        """Wait until no request has a place and nothing runs."""
        await self._idle.wait()

    def shutdown(self, *, wait: bool = False) -> None:
        """End the threads when what runs has ended.

        Args:
            wait: Wait for that.
        """
        self._is_shut_down = True
        self._executor.shutdown(wait=wait, cancel_futures=True)

    async def _wait_for_turn(self, max_wait: float, wait_until_gone: Callable[[], Awaitable[None]]) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        turn = asyncio.ensure_future(self._turns.acquire())
        gone = asyncio.ensure_future(wait_until_gone())
        has_turn = is_gone = False
        try:
            await asyncio.wait((turn, gone), timeout=max_wait, return_when=asyncio.FIRST_COMPLETED)
            has_turn, is_gone = turn.done(), gone.done()
        finally:
            gone.cancel()
            if not has_turn and turn.done():
                self._turns.release()
            elif not has_turn:
                turn.cancel()
        if has_turn:
            return
        if is_gone:
            raise ClientGoneError
        raise RefusedError(
            HTTPStatus.GATEWAY_TIMEOUT,
            f"queue: the request has waited for {max_wait:g} s, its maximum, and was not begun. "
            "Try again, or allow it more time.",
            {"Retry-After": str(self.retry_seconds())},
        )

    def _end_run(self, start: float) -> None:
        self.num_running -= 1
        self._turns.release()
        seconds = time.perf_counter() - start
        mean = self._mean_seconds
        self._mean_seconds = seconds if not mean else mean + _SMOOTHING * (seconds - mean)
        self._check_idle()

    def _check_idle(self) -> None:
        if not self.num_waiting and not self.num_running:
            self._idle.set()


def _stopping() -> RefusedError:
    return RefusedError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "service: is stopping, and takes no more requests. Send the request to another replica, or later.",
        {"Retry-After": "1", "Connection": "close"},
    )
