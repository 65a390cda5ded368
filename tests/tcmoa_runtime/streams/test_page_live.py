"""The WebSocket of the page: browsers receive the newest frame, one at a time, and never delay the stream."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from page_pieces import call, parts_of, running_page, wait_for_frames
from stream_pieces import WAIT_SECONDS, ListSink, LiveSource, ScriptedSource, copying_fuser, wait_until
from tcmoa_runtime import Stream
from tcmoa_runtime.streams.page import browser as browser_module
from tcmoa_runtime.streams.page import hub, server
from tcmoa_runtime.streams.page.sink import Page

aiohttp = pytest.importorskip(
    "aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this"
)

HANGS = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.ws_connect(sys.argv[1]) as socket:
        await socket.receive()
        print("connected", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""
"""A browser that receives one message and never answers; the test stops its process, too."""

MAX_STALLS = 30
"""Frames that one of two sinks may lose more than the other because the machine stalls."""


class Browser:
    """A WebSocket connection to a page."""

    def __init__(self, socket):
        self.socket = socket

    async def take(self, *, ack=True):
        message = await self.socket.receive(timeout=WAIT_SECONDS)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        header, parts = parts_of(message.data)
        if ack:
            await self.ack(header)
        return header, parts

    async def ack(self, header):
        await self.socket.send_str(json.dumps({"ack": header["sequence"]}))

    async def frame(self):
        """The next message with a frame."""
        while "frame" not in (taken := await self.take())[0]:
            pass
        return taken

    async def ask(self, **show):
        await self.socket.send_str(
            json.dumps({"show": {"views": ["fused"], "width": 640, "tc_moa": None, **show}})
        )


def browse(page, visit, *, count=1, **options):
    """Run `visit(browser, ...)` with `count` browsers that are connected to a page."""

    async def main():
        async with aiohttp.ClientSession() as session:
            browsers = [
                Browser(await session.ws_connect(f"http://127.0.0.1:{page.port}/live", **options))
                for _ in range(count)
            ]
            result = await visit(*browsers)
            for browser in browsers:
                await browser.socket.close()
            return result

    return asyncio.run(main())


@pytest.fixture
def served(bundle):
    with running_page(bundle) as both:
        yield both


def test_frames_arrive_in_order_with_the_requested_parts(served):
    page, _ = served

    async def visit(browser):
        await browser.ask(views=["fused", "x", "y", "prompt"])
        got = [await browser.frame() for _ in range(8)]
        assert "fused" in got[0][1]
        return got

    got = browse(page, visit)
    indices = [header["frame"]["index"] for header, _ in got]
    assert indices == sorted(set(indices))
    header, parts = got[-1]
    frame = header["frame"]
    assert list(parts) == ["fused", "x", "y", "prompt"]
    assert frame["status"] == "fused"
    assert frame["grid"] == [13, 17]
    # CopyingBackend: the weight of x is 0.5 + 0.1 * alpha + beta in every token.
    assert parts["prompt"] == bytes([round(0.6 * 255)]) * (13 * 17)
    for view in ("fused", "x", "y"):
        image = cv2.imdecode(np.frombuffer(parts[view], np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (100, 130, 3)
    for name in ("latency_ms", "age_x_ms", "age_y_ms"):
        assert 0 <= frame[name] < 5000
    skipped = sum(h["frame"]["skipped"] for h, _ in got)
    assert skipped == indices[-1] - indices[0] - (len(got) - 1)


def test_messages_hold_statistics_and_the_current_prompt(served):
    page, stream = served
    stream.control.set(shift=0.25, ramp=0)

    async def visit(browser):
        found = []
        while len(found) < 3:
            header, _ = await browser.take()
            if "stats" in header:
                found.append(header["stats"])
        return found

    found = browse(page, visit)
    assert found[0]["control"]["shift"] == 0.25
    assert found[0]["frames"] < found[2]["frames"]
    assert 2 * browser_module.STATS_SECONDS - 0.2 < found[2]["seconds"] - found[0]["seconds"] < 30


def test_statistics_arrive_without_frames(bundle):
    """Both sources stall, and the page stays connected."""
    hook = lambda index: 600.0 if index == 10 else None  # noqa: E731
    with running_page(bundle, x=LiveSource(50, hook=hook), y=LiveSource(50, hook=hook)) as (page, _):

        async def visit(browser):
            await browser.frame()
            without = []
            while len(without) < 3:  # in a row: the last frames may be in between
                header, _ = await browser.take()
                without = [] if "frame" in header else [*without, header]
            return without

        assert all("stats" in header for header in browse(page, visit))


def test_one_message_is_in_flight_and_the_next_has_the_newest_frame(served):
    page, _ = served

    async def visit(browser):
        while "frame" not in (header := (await browser.take(ack=False))[0]):
            await browser.ack(header)
        first, page_hub = header["frame"]["index"], page._server._hub
        await asyncio.to_thread(wait_until, lambda: page_hub.frame.index > first + 10)
        with pytest.raises(TimeoutError):
            await browser.socket.receive(timeout=0.5)
        newest = page_hub.frame.index
        await browser.ack(header)
        after, _ = await browser.frame()
        return newest, after

    newest, after = browse(page, visit)
    assert after["frame"]["index"] >= newest
    assert after["frame"]["skipped"] >= 10


def test_a_hidden_page_receives_no_images(served):
    async def visit(browser):
        await browser.ask(views=[])
        await browser.take()
        await browser.take()
        return [await browser.frame() for _ in range(3)]

    assert all(parts == {} for _, parts in browse(served[0], visit))


def test_a_small_window_receives_small_images(served):
    async def visit(browser):
        await browser.ask(width=50)
        await browser.take()
        await browser.take()
        return await browser.frame()

    _, parts = browse(served[0], visit)
    assert cv2.imdecode(np.frombuffer(parts["fused"], np.uint8), cv2.IMREAD_COLOR).shape == (49, 64, 3)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "3", '{"show": 5}', '{"show": {"views": ["z"], "width": 5}}',
     '{"show": {"views": ["x"], "width": -5}}', '{"show": {"views": ["x"], "width": 1e9}}',
     '{"show": {"views": ["x"], "width": 9, "tc_moa": -1}}', '{"show": {"views": [[]], "width": 9}}'],
)  # fmt: skip
def test_a_wrong_message_disconnects_only_that_browser(served, text):
    page, stream = served

    async def visit(browser):
        await browser.socket.send_str(text)
        while (
            message := await browser.socket.receive(timeout=WAIT_SECONDS)
        ).type is aiohttp.WSMsgType.BINARY:
            pass
        return message

    message = browse(page, visit)
    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert message.data == aiohttp.WSCloseCode.UNSUPPORTED_DATA
    assert call(page, "/api/state")[0] == 200
    frames = stream.stats.snapshot()["frames"]
    wait_for_frames(page, stream, frames + 3)


def test_a_message_that_is_too_long_disconnects_that_browser(served):
    async def visit(browser):
        await browser.socket.send_str("x" * 10_000)
        while (
            message := await browser.socket.receive(timeout=WAIT_SECONDS)
        ).type is aiohttp.WSMsgType.BINARY:
            pass
        return message

    assert browse(served[0], visit).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


def test_the_number_of_browsers_is_limited(served):
    page, _ = served

    async def visit(*browsers):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            async with aiohttp.ClientSession() as session:
                await session.ws_connect(f"http://127.0.0.1:{page.port}/live")
        for browser in browsers:
            await browser.frame()

    browse(page, visit, count=browser_module.MAX_BROWSERS)
    wait_until(lambda: not page._server._hub.connections)
    browse(page, visit_one)


async def visit_one(browser):
    return await browser.frame()


def test_browsers_learn_of_the_end_of_the_stream(bundle, monkeypatch):
    monkeypatch.setattr(server, "SHUTDOWN_SECONDS", 5.0)  # a busy machine may take longer than a second
    with running_page(bundle) as (page, stream):

        async def visit(browser):
            await browser.frame()
            stream.stop()
            while not (header := (await browser.take())[0])["ended"]:
                pass
            return header, await browser.socket.receive(timeout=WAIT_SECONDS)

        header, closed = browse(page, visit)
    assert header["stats"]["frames"] >= 1
    assert closed.type is aiohttp.WSMsgType.CLOSE


def test_a_browser_that_does_not_answer_does_not_delay_the_end(bundle):
    with running_page(bundle) as (page, stream):

        async def visit(browser):
            await browser.take(ack=False)
            stream.stop()
            began = time.monotonic()
            await asyncio.to_thread(stream.close)
            return time.monotonic() - began

        assert browse(page, visit) < 14  # without a limit on browsers, 15 s
    assert stream.notes == []


def test_hanging_browsers_do_not_delay_the_stream(bundle):
    """Real processes, stopped by SIGSTOP like a hung browser: the rate stays, and the end is not delayed."""
    with running_page(bundle, rate=50, sinks=[ListSink(lossless=False)]) as (page, stream):
        command = [sys.executable, "-c", HANGS, f"http://127.0.0.1:{page.port}/live"]
        hung = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        try:
            for process in hung:
                assert process.stdout.readline() == "connected\n"
                os.kill(process.pid, signal.SIGSTOP)
            before = stream.stats.snapshot()
            time.sleep(3)
            after = stream.stats.snapshot()
            rate = (after["frames"] - before["frames"]) / (after["seconds"] - before["seconds"])
            assert rate > 15  # of 50; the machine may be busy
            # The list never waits for a browser; if the machine stalls for a moment, it loses frames, too. A page that
            # waited would lose most of 150.
            page_dropped, list_dropped = (
                after["dropped"].get(sink, 0) - before["dropped"].get(sink, 0)
                for sink in ("sink-page", "sink-list")
            )
            assert page_dropped <= list_dropped + MAX_STALLS
            assert (browse(page, visit_one))[0]["frame"]["index"] >= after["frames"] - 5
        finally:
            for process in hung:
                process.kill()
                process.communicate()


@pytest.fixture
def encoded(monkeypatch):
    """Images that are encoded during the test: index, name, width."""
    images, encode_jpeg = [], hub.encode_jpeg

    def record(frame, name, width, order):
        images.append((frame.index, name, width))
        return encode_jpeg(frame, name, width, order)

    monkeypatch.setattr(hub, "encode_jpeg", record)
    return images


def test_without_browsers_no_image_is_encoded(bundle, encoded):
    with running_page(bundle) as (page, stream):
        wait_for_frames(page, stream, 20)
    assert encoded == []


def test_browsers_share_encoded_images(served, encoded):
    page, _ = served

    async def visit(*browsers):
        taken = await asyncio.gather(*(self_frames(browser) for browser in browsers))
        return [set(one) for one in taken]

    async def self_frames(browser):
        return [(await browser.frame())[0]["frame"]["index"] for _ in range(20)]

    first, second = browse(page, visit, count=2)
    assert first & second
    assert len(encoded) == len(set(encoded))


def test_the_page_does_not_slow_streams_of_files(bundle):
    page = Page("127.0.0.1:0")
    x, y = (ScriptedSource([i * 40 for i in range(400)]) for _ in range(2))
    stats = Stream(copying_fuser(bundle), x, y, sinks=[page]).run()
    assert stats.snapshot()["frames"] == 400
