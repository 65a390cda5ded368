"""A window on the screen, by OpenCV."""

from __future__ import annotations

from typing import Final

import numpy as np

from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat

TITLE: Final = "tcmoa"


class Window:
    """Shows the newest frame; closing the window ends the sink. Needs an OpenCV with windows, and a screen."""

    name, lossless = "window", False

    def __init__(self) -> None:
        self._flip = False
        self._shown = False

    def open(self, form: StreamFormat) -> None:
        """Open the window; raises SinkError where there can be none."""
        import cv2

        self._flip = form.channel_order == "rgb"
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(TITLE, form.width, form.height)
        except cv2.error as error:
            if "not implemented" in str(error):
                raise SinkError(
                    "window: this OpenCV has no windows; run `pip uninstall opencv-python-headless`, then "
                    "`pip install opencv-python`"
                ) from error
            raise SinkError("window: there is no screen to open it on") from error

    def write(self, frame: FusedFrame) -> None:
        """Show a frame; raises SinkError when the window was closed."""
        import cv2

        if self._shown and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise SinkError("window: was closed")
        cv2.imshow(TITLE, np.ascontiguousarray(frame.image[..., ::-1]) if self._flip else frame.image)
        cv2.waitKey(1)
        self._shown = True

    def close(self) -> None:
        """Close the window."""
        import cv2

        try:
            cv2.destroyWindow(TITLE)
        except cv2.error:  # it is closed, or never was
            return
