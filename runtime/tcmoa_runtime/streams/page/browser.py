"""The connection to one browser, a WebSocket that always sends the newest frame.

One message is in flight for each browser. The browser answers it by `{"ack": SEQUENCE}`; until then nothing is queued
for it, and the frames in between are skipped. A message is a little-endian uint32 (length of the header), the header
(JSON in UTF-8) and the parts that its key `parts` lists.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from dataclasses import dataclass, field
from typing import Final, NotRequired, TypedDict, get_args

from aiohttp import WSCloseCode, WSMsgType, web

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.streams.page.encoding import PartName, encode_prompt
from tcmoa_runtime.streams.page.hub import Hub
from tcmoa_runtime.streams.page.json_body import MAX_DEPTH
from tcmoa_runtime.streams.page.routes import MAX_WIDTH_PX
from tcmoa_runtime.streams.page.stream_info import BrowserStats
from tcmoa_runtime.web.json_text import parse_json

MAX_BROWSERS: Final = 8
STATS_SECONDS: Final = 0.5
"""Time between two messages with statistics."""
ACKNOWLEDGE_SECONDS: Final = 60.0
"""Time for the answer to a message. A browser that keeps the connection open and does not answer is disconnected."""
HEARTBEAT_SECONDS: Final = 15.0
"""Time between pings; a browser that does not answer within half of it is disconnected."""
MAX_MESSAGE_BYTES: Final = 4096
"""Largest message of a browser; useful ones have about a hundred bytes."""
MAX_TC_MOA: Final = 1000
_MAX_REASON_BYTES: Final = 120
"""A close frame of a WebSocket holds 123 bytes of text."""


class FrameHeader(TypedDict):
    """Description of the frame in a message, as JSON."""

    index: int
    time: float
    status: str
    latency_ms: float | None
    age_x_ms: float | None
    age_y_ms: float | None
    skipped: int
    grid: list[int] | None


class Header(TypedDict):
    """Header of a message, as JSON."""

    sequence: int
    ended: bool
    stats: NotRequired[BrowserStats]
    frame: NotRequired[FrameHeader]
    parts: NotRequired[list[tuple[PartName, int]]]


@dataclass(frozen=True)
class ViewRequest:
    """What a browser has requested: the parts, the width of images in pixels, and the TC-MoA of the prompt map."""

    views: tuple[PartName, ...] = ("fused",)
    width: int = 640
    tc_moa: int | None = None

    @classmethod
    def parse(cls, value: object) -> ViewRequest:
        """Read the value of `show` in a message.

        Raises:
            InputError: It has another form.
        """
        request = value if isinstance(value, dict) else {}
        views, width, tc_moa = request.get("views"), request.get("width"), request.get("tc_moa")
        names: tuple[PartName, ...] = get_args(PartName)
        if not (
            isinstance(views, list)
            and all(view in names for view in views)
            and isinstance(width, int)
            and 0 < width <= MAX_WIDTH_PX
            and (tc_moa is None or (isinstance(tc_moa, int) and 0 <= tc_moa < MAX_TC_MOA))
        ):
            raise InputError(
                f"{json.dumps(value)[:200]}; expected views ({', '.join(names)}), width and tc_moa",
                subject="show",
            )
        return cls(tuple(dict.fromkeys(views)), width, tc_moa)


@dataclass(eq=False)
class BrowserConnection:
    """One browser."""

    socket: web.WebSocketResponse
    hub: Hub
    transport: asyncio.Transport | None
    request: ViewRequest = field(default_factory=ViewRequest)
    sequence: int = 0
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        """Send frames and read messages until the browser disconnects or the stream ends."""
        self.acknowledged.set()
        sending = asyncio.create_task(self._send_or_close())
        try:
            async for message in self.socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    self._handle_message(message.data)
                except InputError as error:
                    await self._close(WSCloseCode.UNSUPPORTED_DATA, str(error))
                    break
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def abort(self) -> None:
        """Cut the connection without waiting for the browser."""
        if self.transport is not None:
            self.transport.abort()

    def _handle_message(self, text: str) -> None:
        message = parse_json(text, "message", max_depth=MAX_DEPTH)
        if not isinstance(message, dict):
            raise InputError("not a JSON object", subject="message")
        if "show" in message:
            self.request = ViewRequest.parse(message["show"])
        if message.get("ack") == self.sequence:
            self.acknowledged.set()

    async def _send_or_close(self) -> None:
        try:
            await self._send_frames()
        except ConnectionError:  # the browser has disconnected
            return
        except TimeoutError:
            self.abort()
        except Exception as error:  # without a close frame the browser would wait forever
            await self._close(WSCloseCode.INTERNAL_ERROR, str(error))
            raise

    async def _send_frames(self) -> None:
        last_index, stats_time, ended = -1, 0.0, False
        while not ended:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                await self.acknowledged.wait()
            timeout = max(0.0, stats_time + STATS_SECONDS - time.monotonic())
            frame = await self.hub.wait_newer(last_index, timeout)
            ended = self.hub.ended
            stats_are_due = ended or time.monotonic() >= stats_time + STATS_SECONDS
            if frame is None and not stats_are_due:
                continue
            header: Header = {"sequence": self.sequence + 1, "ended": ended}
            if stats_are_due:
                stats_time = time.monotonic()
                header["stats"] = self.hub.stats()
            parts: list[bytes] = []
            if frame is not None:
                skipped = frame.index - last_index - 1 if last_index >= 0 else 0
                header["frame"] = _frame_header(frame, skipped)
                named_parts = await self._encode_parts(frame)
                header["parts"] = [(name, len(part)) for name, part in named_parts]
                parts = [part for _, part in named_parts]
                last_index = frame.index
            self.sequence = header["sequence"]
            self.acknowledged.clear()
            header_bytes = json.dumps(header, allow_nan=False).encode()
            await self.socket.send_bytes(
                b"".join([struct.pack("<I", len(header_bytes)), header_bytes, *parts])
            )
        await self.socket.close(message=b"the stream has ended")

    async def _encode_parts(self, frame: FusedFrame) -> list[tuple[PartName, bytes]]:
        """Return the requested parts that the frame has."""
        request = self.request

        async def encode(view: PartName) -> bytes | None:
            if view == "prompt":
                return encode_prompt(frame, request.tc_moa)
            return await self.hub.jpeg(frame, view, request.width)

        parts = await asyncio.gather(*(encode(view) for view in request.views))
        return [(view, part) for view, part in zip(request.views, parts, strict=True) if part is not None]

    async def _close(self, code: int, reason: str) -> None:
        cut = reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")  # whole characters
        await self.socket.close(code=code, message=cut.encode())


def _frame_header(frame: FusedFrame, skipped: int) -> FrameHeader:
    def milliseconds(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds * 1000, 1)

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
    """Accept a WebSocket and serve the browser until it disconnects or the stream ends."""
    if len(hub.connections) >= MAX_BROWSERS:
        raise web.HTTPServiceUnavailable(
            text=f"{MAX_BROWSERS} browsers are connected, which is the maximum. Close one of them."
        )
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, compress=False
    )
    connection = BrowserConnection(socket, hub, request.transport)
    hub.connections.add(connection)
    try:
        await socket.prepare(request)
        await connection.serve()
    finally:
        hub.connections.discard(connection)
    return socket
