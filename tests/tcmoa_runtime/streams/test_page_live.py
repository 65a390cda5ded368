"""Browsers on the WebSocket: they get the newest frame, one at a time, and none of them holds anything up."""

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
from stream_pieces import LiveSource, ScriptedSource, copying_fuser
from tcmoa_runtime import Stream
from tcmoa_runtime.streams.page import live
from tcmoa_runtime.streams.page.sink import Page

aiohttp = pytest.importorskip(
    "aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this"
)

HANGS = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.ws_connect(sys.argv[1]) as socket:
        await socket.receive()
        print("looking", flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""
"""A browser that takes one message and never answers; the test stops the whole process, too."""


class Browser:
    """A WebSocket of a page."""

    def __init__(self, socket):
        self.socket = socket

    async def take(self, *, ack=True):
        message = await self.socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        header, parts = parts_of(message.data)
        if ack:
            await self.socket.send_str(json.dumps({"ack": header["n"]}))
        return header, parts

    async def frame(self):
        """The next message with a frame."""
        while "frame" not in (taken := await self.take())[0]:
            pass
        return taken

    async def ask(self, **show):
        await self.socket.send_str(
            json.dumps({"show": {"views": ["fused"], "width": 640, "moa": None, **show}})
        )


def browse(page, visit, *, count=1, **options):
    """Run `visit(browser, ...)` with `count` browsers of a page."""

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


def test_frames_come_in_order_with_what_was_asked_for(served):
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
    # CopyingBackend: 0.5 + 0.1 * alpha + beta is x's share in every token.
    assert parts["prompt"] == bytes([round(0.6 * 255)]) * (13 * 17)
    for view in ("fused", "x", "y"):
        image = cv2.imdecode(np.frombuffer(parts[view], np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (100, 130, 3)
    for name in ("latency_ms", "age_x_ms", "age_y_ms"):
        assert 0 <= frame[name] < 5000
    skipped = sum(h["frame"]["skipped"] for h, _ in got)
    assert skipped == indices[-1] - indices[0] - (len(got) - 1)


def test_figures_and_the_prompt_in_force_come_along(served):
    page, stream = served
    stream.control.set(shift=0.25, ramp=0)

    async def visit(browser):
        found = []
        began = time.monotonic()
        while len(found) < 3:
            header, _ = await browser.take()
            if "figures" in header:
                found.append((header["figures"], time.monotonic() - began))
        return found

    found = browse(page, visit)
    assert found[0][0]["control"]["shift"] == 0.25
    assert found[0][0]["frames"] < found[2][0]["frames"]
    assert 0.8 < found[2][1] - found[0][1] < 5


def test_figures_come_while_no_frame_does(bundle):
    """Both sources stall: the page still lives."""
    hook = lambda index: 30.0 if index == 10 else None  # noqa: E731
    with running_page(bundle, x=LiveSource(50, hook=hook), y=LiveSource(50, hook=hook)) as (page, stream):
        wait_for_frames(page, stream, 8)
        time.sleep(0.3)

        async def visit(browser):
            await browser.frame()
            return [(await browser.take())[0] for _ in range(3)]

        for header in browse(page, visit):
            assert "figures" in header
            assert "frame" not in header


def test_one_message_is_in_flight_and_then_comes_the_newest(served):
    page, stream = served

    async def visit(browser):
        header, _ = await browser.take(ack=False)
        with pytest.raises(TimeoutError):
            await browser.socket.receive(timeout=1.0)
        passed = stream.stats.snapshot()["frames"]
        await browser.socket.send_str(json.dumps({"ack": header["n"]}))
        after, _ = await browser.frame()
        return header, passed, after

    header, passed, after = browse(page, visit)
    assert after["frame"]["index"] >= passed - 1 > header["frame"]["index"] + 10
    assert after["frame"]["skipped"] >= 10


def test_a_hidden_page_gets_figures_and_no_pictures(served):
    async def visit(browser):
        await browser.ask(views=[])
        await browser.take()
        await browser.take()
        return [await browser.frame() for _ in range(3)]

    assert all(parts == {} for _, parts in browse(served[0], visit))


def test_a_small_window_gets_small_pictures(served):
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
     '{"show": {"views": ["x"], "width": 9, "moa": -1}}', '{"show": {"views": [[]], "width": 9}}'],
)  # fmt: skip
def test_nonsense_ends_that_browser_and_nothing_else(served, text):
    page, stream = served

    async def visit(browser):
        await browser.socket.send_str(text)
        while (message := await browser.socket.receive(timeout=5)).type is aiohttp.WSMsgType.BINARY:
            pass
        return message

    message = browse(page, visit)
    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert message.data == aiohttp.WSCloseCode.UNSUPPORTED_DATA
    assert call(page, "/api/state")[0] == 200
    frames = stream.stats.snapshot()["frames"]
    wait_for_frames(page, stream, frames + 3)


def test_a_message_that_is_too_long_ends_that_browser(served):
    async def visit(browser):
        await browser.socket.send_str("x" * 10_000)
        while (message := await browser.socket.receive(timeout=5)).type is aiohttp.WSMsgType.BINARY:
            pass
        return message

    assert browse(served[0], visit).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


def test_there_are_only_so_many_browsers(served):
    page, _ = served

    async def visit(*browsers):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            async with aiohttp.ClientSession() as session:
                await session.ws_connect(f"http://127.0.0.1:{page.port}/live")
        for browser in browsers:
            await browser.frame()

    browse(page, visit, count=live.MOST_CLIENTS)
    time.sleep(0.2)
    browse(page, visit_one)


async def visit_one(browser):
    return await browser.frame()


def test_the_end_of_the_stream_is_told_to_browsers(bundle):
    with running_page(bundle) as (page, stream):

        async def visit(browser):
            await browser.frame()
            stream.stop()
            while not (header := (await browser.take())[0])["ended"]:
                pass
            return header, await browser.socket.receive(timeout=5)

        header, closed = browse(page, visit)
    assert header["figures"]["frames"] >= 1
    assert closed.type is aiohttp.WSMsgType.CLOSE


def test_the_end_is_not_held_up_by_a_browser_that_does_not_listen(bundle):
    with running_page(bundle) as (page, stream):

        async def visit(browser):
            await browser.take(ack=False)
            stream.stop()
            began = time.monotonic()
            await asyncio.to_thread(stream.close)
            return time.monotonic() - began

        assert browse(page, visit) < 8
    assert stream.notes == []


def test_hanging_browsers_hold_up_nothing_and_vanish(bundle):
    """Real processes, stopped by SIGSTOP as a hung browser is: rate and latency stay, and nobody waits at the end."""
    with running_page(bundle, rate=50) as (page, stream):
        command = [sys.executable, "-c", HANGS, f"http://127.0.0.1:{page.port}/live"]
        hung = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        try:
            for process in hung:
                assert process.stdout.readline() == "looking\n"
                os.kill(process.pid, signal.SIGSTOP)
            before = stream.stats.snapshot()
            time.sleep(3)
            after = stream.stats.snapshot()
            rate = (after["frames"] - before["frames"]) / (after["seconds"] - before["seconds"])
            assert rate > 35  # of 50; the machine may be busy
            assert after["dropped"].get("sink-page", 0) == 0
            assert (browse(page, visit_one))[0]["frame"]["index"] >= after["frames"] - 5
        finally:
            for process in hung:
                process.kill()
                process.communicate()


@pytest.fixture
def encoded(monkeypatch):
    """What is encoded during the test: index, view, width."""
    made, encode = [], live.encode

    def counted(frame, view, width, order):
        made.append((frame.index, view, width))
        return encode(frame, view, width, order)

    monkeypatch.setattr(live, "encode", counted)
    return made


def test_a_page_that_nobody_looks_at_encodes_nothing(bundle, encoded):
    with running_page(bundle) as (page, stream):
        wait_for_frames(page, stream, 20)
    assert encoded == []


def test_two_browsers_share_what_is_encoded(served, encoded):
    page, _ = served

    async def visit(*browsers):
        taken = await asyncio.gather(*(self_frames(browser) for browser in browsers))
        return [set(one) for one in taken]

    async def self_frames(browser):
        return [(await browser.frame())[0]["frame"]["index"] for _ in range(20)]

    first, second = browse(page, visit, count=2)
    assert first & second
    assert len(encoded) == len(set(encoded))


def test_files_are_shown_as_fast_as_they_are_fused(bundle):
    page = Page("127.0.0.1:0")
    x, y = (ScriptedSource([i * 40 for i in range(400)]) for _ in range(2))
    figures = Stream(copying_fuser(bundle), x, y, sinks=[page]).run()
    assert figures.snapshot()["frames"] == 400
