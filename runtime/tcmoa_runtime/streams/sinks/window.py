"""A window on the screen, by OpenCV."""

from __future__ import annotations

import os
import sys
from typing import Final

from tcmoa_runtime.images import in_order
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkClosedError, SinkError, StreamFormat
from tcmoa_runtime.typing import ChannelOrder

TITLE: Final = "tcmoa"


_SCREENS: Final = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


def _has_screen() -> bool:
    """Whether a screen is set on systems where it must be: without one, Qt ends the whole process."""
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _SCREENS)


class WindowSink:
    """Shows the newest frame; closing the window ends the sink. Needs a screen and a build of OpenCV with windows."""

    name, lossless = "window", False

    def __init__(self) -> None:
        self._channel_order: ChannelOrder = "rgb"
        self._is_shown = False

    def open(self, stream_format: StreamFormat) -> None:
        """Open the window.

        Raises:
            SinkError: OpenCV was built without windows, or there is no screen.
        """
        import cv2

        self._channel_order = stream_format.channel_order
        if getattr(cv2, "currentUIFramework", str)() and not _has_screen():
            raise SinkError("there is no screen to open it on", subject=self.name)
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(TITLE, stream_format.width, stream_format.height)
        except cv2.error as error:
            if "not implemented" in str(error):
                raise SinkError(
                    "this build of OpenCV has no windows",
                    subject=self.name,
                    remedy="Run `pip uninstall opencv-python-headless`, then `pip install opencv-python`",
                ) from error
            raise SinkError("there is no screen to open it on", subject=self.name) from error

    def write(self, frame: FusedFrame) -> None:
        """Show a frame.

        Raises:
            SinkClosedError: The window was closed.
        """
        import cv2

        if self._is_shown and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise SinkClosedError("was closed", subject=self.name)
        # OpenCV shows BGR.
        cv2.imshow(TITLE, frame.image if self._channel_order == "bgr" else in_order(frame.image, "bgr"))
        cv2.waitKey(1)
        self._is_shown = True

    def close(self) -> None:
        """Close the window."""
        import cv2

        try:
            cv2.destroyWindow(TITLE)
        except cv2.error:  # it was closed or never opened
            return
