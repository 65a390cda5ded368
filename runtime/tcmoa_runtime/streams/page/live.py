"""Frames to browsers: each gets the newest one when it has done with the last, and nobody waits for it.

One WebSocket message is in flight per browser. It is answered by `{"ack": n}`; until then the server keeps nothing
for that browser, and what passes meanwhile is skipped. A message is a little-endian uint32 (bytes of the header), the
header (JSON, UTF-8) and the parts that its `parts` names, one after another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.streams.page.pictures import VIEWS, encode, prompt_levels, rounded

MOST_CLIENTS: Final = 8
FIGURES_SECONDS: Final = 0.5
"""How often figures go along."""
HEARTBEAT_SECONDS: Final = 15.0
"""A browser that answers no ping for half as long again has vanished."""
LONGEST_MESSAGE: Final = 4096
"""Bytes of a message of a browser; the longest that makes sense has a hundred."""
LARGEST_WIDTH: Final = 8192


class Hub:
    """The newest frame, and who waits for the next one. All of it belongs to the server's thread, but for `put`."""

    def __init__(self, channel_order: str, executor: Executor, figures: Callable[[], dict[str, Any]]) -> None:
        """`figures` gives what goes along twice a second, for JSON; `executor` encodes."""
        self.figures = figures
        self._order, self._executor = channel_order, executor
        self._made: dict[tuple[str, int], asyncio.Future[bytes | None]] = {}
        self._made_of = -1
        self.loop = asyncio.get_running_loop()
        self.clients: set[Client] = set()
        self.frame: FusedFrame | None = None
        self.ended = False
        self._arrived = asyncio.Event()
        self._woken = False

    def put(self, frame: FusedFrame) -> None:
        """Take the place of the frame before; from any thread, and at once."""
        self.frame = frame
        if not self._woken:  # one call in flight, however slow the server's thread is
            self._woken = True
            self.loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """No more frames come."""
        self.ended = True
        self._wake()

    async def newer(self, than: int, timeout: float) -> FusedFrame | None:
        """The newest frame once its index is above `than`, or None after `timeout` seconds or at the end."""
        if (self.frame is None or self.frame.index <= than) and not self.ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), timeout)
        return self.frame if self.frame is not None and self.frame.index > than else None

    async def picture(self, frame: FusedFrame, view: str, width: int, moa: int | None = None) -> bytes | None:
        """`pictures.encode` or, of view `prompt`, `prompt_levels`: made once, however many browsers ask."""
        if view == "prompt":
            return prompt_levels(frame, moa)
        if frame.index != self._made_of:
            self._made, self._made_of = {}, frame.index
        key = (view, rounded(width))
        if key not in self._made:
            self._made[key] = self.loop.run_in_executor(
                self._executor, encode, frame, view, key[1], self._order
            )
        # A browser that leaves meanwhile must not take the picture away from the others.
        return await asyncio.shield(self._made[key])

    def _wake(self) -> None:
        self._woken = False
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()


@dataclass
class _Wanted:
    """What a browser asked to see."""

    views: tuple[str, ...] = ("fused",)
    width: int = 640
    moa: int | None = None

    @classmethod
    def of(cls, asked: Any) -> _Wanted:
        asked = asked if isinstance(asked, dict) else {}
        views, width, moa = asked.get("views"), asked.get("width"), asked.get("moa")
        good = (
            isinstance(views, list)
            and all(view in VIEWS for view in views)
            and isinstance(width, int)
            and 0 < width <= LARGEST_WIDTH
            and (moa is None or (isinstance(moa, int) and 0 <= moa < 1000))
        )
        if not good:
            raise ValueError(
                f"show is {json.dumps(asked)[:200]}: expected views of {', '.join(VIEWS)}, a width, a moa"
            )
        return cls(tuple(dict.fromkeys(views)), width, moa)


@dataclass(eq=False)
class Client:
    """One browser."""

    socket: web.WebSocketResponse
    hub: Hub
    transport: asyncio.Transport | None
    wanted: _Wanted = field(default_factory=_Wanted)
    sent: int = 0
    acked: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        """Send and listen until one side leaves."""
        self.acked.set()
        sending = asyncio.create_task(self._send_or_close())
        try:
            async for message in self.socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    self._hear(message.data)
                except ValueError as error:
                    await self.socket.close(
                        code=WSCloseCode.UNSUPPORTED_DATA, message=str(error)[:120].encode()
                    )
                    break
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def drop(self) -> None:
        """Cut the connection of a browser that does not listen."""
        if self.transport is not None:
            self.transport.abort()

    def _hear(self, text: str) -> None:
        said = json.loads(text)
        if not isinstance(said, dict):
            raise ValueError("expected a JSON object")  # noqa: TRY004  the caller's one kind of refusal
        if "show" in said:
            self.wanted = _Wanted.of(said["show"])
        if said.get("ack") == self.sent:
            self.acked.set()

    async def _send_or_close(self) -> None:
        try:
            await self._send()
        except ConnectionError:  # the browser has gone
            return
        except Exception as error:  # told to the browser, which would wait for ever
            await self.socket.close(code=WSCloseCode.INTERNAL_ERROR, message=str(error)[:120].encode())
            raise

    async def _send(self) -> None:
        shown, told, last = -1, 0.0, False
        while not last:
            await self.acked.wait()
            left = told + FIGURES_SECONDS - time.monotonic()
            frame = await self.hub.newer(shown, max(0.0, left))
            last = self.hub.ended
            header: dict[str, Any] = {"ended": last}
            if time.monotonic() >= told + FIGURES_SECONDS or last:
                told = time.monotonic()
                header["figures"] = self.hub.figures()
            elif frame is None:
                continue
            parts: list[bytes] = []
            if frame is not None:
                header["frame"] = _described(frame, skipped=frame.index - shown - 1 if shown >= 0 else 0)
                header["parts"], parts = await self._parts(frame)
                shown = frame.index
            self.sent += 1
            header["n"] = self.sent
            self.acked.clear()
            coded = json.dumps(header, allow_nan=False).encode()
            await self.socket.send_bytes(b"".join([struct.pack("<I", len(coded)), coded, *parts]))
        await self.socket.close(message=b"the stream has ended")

    async def _parts(self, frame: FusedFrame) -> tuple[list[list[Any]], list[bytes]]:
        wanted = self.wanted
        made = await asyncio.gather(
            *(self.hub.picture(frame, view, wanted.width, wanted.moa) for view in wanted.views)
        )
        there = [(view, part) for view, part in zip(wanted.views, made, strict=True) if part is not None]
        return [[view, len(part)] for view, part in there], [part for _, part in there]


def _described(frame: FusedFrame, *, skipped: int) -> dict[str, Any]:
    def milliseconds(value: float | None) -> float | None:
        return None if value is None else round(value * 1000, 1)

    return {
        "index": frame.index,
        "time": round(frame.time, 4),
        "status": frame.status,
        "latency_ms": milliseconds(frame.latency),
        "age_x_ms": milliseconds(frame.age_x),
        "age_y_ms": milliseconds(frame.age_y),
        "skipped": skipped,
        "grid": None if frame.prompt is None else list(frame.prompt.shape[-2:]),
    }


async def serve_browser(request: web.Request, hub: Hub) -> web.WebSocketResponse:
    """Answer a WebSocket request and serve the browser until it leaves or the stream ends."""
    if len(hub.clients) >= MOST_CLIENTS:
        raise web.HTTPServiceUnavailable(text=f"{MOST_CLIENTS} browsers look on already: close one of them")
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=LONGEST_MESSAGE, compress=False)
    client = Client(socket, hub, request.transport)
    hub.clients.add(client)
    try:
        await socket.prepare(request)
        await client.serve()
    finally:
        hub.clients.discard(client)
    return socket
