"""The queue of the service by itself: turns, cancelled requests and a stop; and a signal before the server runs."""

import asyncio
import threading

import pytest

from service_pieces import SECONDS
from stream_pieces import copying_fuser
from tcmoa_runtime import Bundle
from tcmoa_runtime.web.address import Address
from tcmoa_runtime.web.refusal import RefusedError

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")

from tcmoa_runtime.serving.application import make_application
from tcmoa_runtime.serving.server import ServiceServer
from tcmoa_runtime.serving.work_queue import ClientGoneError, WorkQueue


class Held:
    """A function that runs until it is released."""

    def __init__(self):
        self.begun, self.released = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.released.wait(SECONDS)
        return "done"


async def never_gone():
    await asyncio.Event().wait()


async def request(queue, function, max_wait=SECONDS, wait_until_gone=never_gone):
    async with queue.place():
        return await queue.run(function, max_wait, wait_until_gone)


async def busy(queue):
    """Return a function that runs on the only thread, and the task of its request."""
    held = Held()
    task = asyncio.create_task(request(queue, held))
    await asyncio.to_thread(held.begun.wait, SECONDS)
    return held, task


def counts(queue):
    return queue.num_waiting, queue.num_running


def test_a_cancelled_request_leaves_its_turn_to_the_next_one():
    async def check():
        queue = WorkQueue(1, 4)
        held, first = await busy(queue)
        second = asyncio.create_task(request(queue, lambda: "second"))
        third = asyncio.create_task(request(queue, lambda: "third"))
        await asyncio.sleep(0)
        assert counts(queue) == (2, 1)
        second.cancel()
        held.released.set()  # its turn may come in the same step in which it is cancelled
        assert (await first, await third) == ("done", "third")
        with pytest.raises(asyncio.CancelledError):
            await second
        assert counts(queue) == (0, 0)
        await asyncio.wait_for(queue.wait_idle(), SECONDS)
        queue.shutdown()

    asyncio.run(check())


def test_a_request_that_is_cancelled_while_it_runs_keeps_the_thread_until_its_end():
    async def check():
        queue = WorkQueue(1, 4)
        held, first = await busy(queue)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert counts(queue) == (0, 1)
        with pytest.raises(RefusedError, match=r"^queue: the request has waited for 0\.01 s, its maximum"):
            await request(queue, lambda: "late", max_wait=0.01)
        held.released.set()
        assert await request(queue, lambda: "next") == "next"
        await asyncio.wait_for(queue.wait_idle(), SECONDS)
        queue.shutdown()

    asyncio.run(check())


def test_a_client_that_is_gone_before_its_turn_gives_its_place_back():
    async def gone():
        return

    async def check():
        queue = WorkQueue(1, 4)
        held, first = await busy(queue)
        with pytest.raises(ClientGoneError):
            await request(queue, lambda: "never", wait_until_gone=gone)
        assert counts(queue) == (0, 1)
        held.released.set()
        assert await first == "done"
        queue.shutdown()

    asyncio.run(check())


def test_a_request_whose_turn_comes_after_the_stop_leaves_the_counts_right():
    async def check():
        queue = WorkQueue(1, 4)
        held, first = await busy(queue)
        second = asyncio.create_task(request(queue, lambda: "second"))
        await asyncio.sleep(0)
        queue.close()
        queue.shutdown()  # the time of the stop is over
        held.released.set()
        assert await first == "done"
        with pytest.raises(RefusedError, match=r"^service: is stopping"):
            await second
        assert counts(queue) == (0, 0)
        with pytest.raises(RefusedError, match=r"^service: is stopping"):
            await request(queue, lambda: "third")
        await asyncio.wait_for(queue.wait_idle(), SECONDS)

    asyncio.run(check())


def test_a_signal_that_comes_before_the_server_runs_stops_it(exported):
    with copying_fuser(Bundle.open(exported("vif"))) as fuser:
        server = ServiceServer(
            make_application({"copy": fuser}), Address("127.0.0.1", 0).bind(subject="service")
        )
        server.stop()
        ended = []
        thread = threading.Thread(target=lambda: ended.append(server.run(5.0)), daemon=True)
        thread.start()
        thread.join(SECONDS)
        try:
            assert ended == [True]
        finally:
            server.stop()
            thread.join(SECONDS)
