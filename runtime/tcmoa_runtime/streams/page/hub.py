"""The newest frame of a stream, and its encoded images, for all browsers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.streams.page.encoding import ImageName, encode_jpeg, encode_png, round_width
from tcmoa_runtime.streams.page.stream_info import BrowserStats
from tcmoa_runtime.typing import ChannelOrder


class Connection(Protocol):
    """A browser that is connected."""

    def abort(self) -> None:
        """Cut the connection without waiting for the browser."""
        ...


class Hub:
    """Holds the newest frame and wakes the browsers that wait for it.

    All methods but `put` belong to the thread of the server's event loop.
    """

    def __init__(
        self, channel_order: ChannelOrder, executor: Executor, stats: Callable[[], BrowserStats]
    ) -> None:
        """Create a hub in the running event loop.

        Args:
            channel_order: Channel order of the frames.
            executor: Encodes JPEGs.
            stats: Returns the statistics that are sent to browsers, as JSON.
        """
        self.loop = asyncio.get_running_loop()
        self.stats = stats
        self.connections: set[Connection] = set()
        self.frame: FusedFrame | None = None
        self.ended = False
        self._channel_order, self._executor = channel_order, executor
        self._encoded: dict[tuple[ImageName, int | None], asyncio.Future[bytes | None]] = {}
        self._encoded_index = -1
        self._arrived = asyncio.Event()
        self._wake_is_scheduled = False

    def put(self, frame: FusedFrame) -> None:
        """Replace the frame; does not block and may be called from any thread."""
        self.frame = frame
        if not self._wake_is_scheduled:  # at most one call is queued, however slow the event loop is
            self._wake_is_scheduled = True
            self.loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """Announce that no more frames follow."""
        self.ended = True
        self._wake()

    async def wait_newer(self, index: int, timeout: float) -> FusedFrame | None:
        """Wait for a frame with a higher index.

        Args:
            index: Index of a frame.
            timeout: Seconds.

        Returns:
            The newest frame; None after the timeout or at the end.
        """
        if (self.frame is None or self.frame.index <= index) and not self.ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), timeout)
        return self.frame if self.frame is not None and self.frame.index > index else None

    async def jpeg(self, frame: FusedFrame, name: ImageName, width: int) -> bytes | None:
        """Return `encode_jpeg` of a frame; each image is encoded once for all browsers."""
        width = round_width(width)
        return await self._encode(
            frame, name, width, lambda: encode_jpeg(frame, name, width, self._channel_order)
        )

    async def png(self, frame: FusedFrame, name: ImageName) -> bytes | None:
        """Return `encode_png` of a frame; each image is encoded once for all browsers."""
        return await self._encode(frame, name, None, lambda: encode_png(frame, name, self._channel_order))

    async def _encode(
        self, frame: FusedFrame, name: ImageName, width: int | None, encode: Callable[[], bytes | None]
    ) -> bytes | None:
        if frame.index != self._encoded_index:
            self._encoded, self._encoded_index = {}, frame.index
        key = (name, width)
        if key not in self._encoded:
            self._encoded[key] = self.loop.run_in_executor(self._executor, encode)
        # Shielded: a browser that disconnects must not cancel the encoding for the others.
        return await asyncio.shield(self._encoded[key])

    def _wake(self) -> None:
        self._wake_is_scheduled = False
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()
