"""Scripted sources, sinks and a backend for tests of streams, as fast or slow as a test needs."""

import threading
import time
from fractions import Fraction

import numpy as np

from tcmoa_runtime import Fuser
from tcmoa_runtime.contract import FUSED, PROMPT, X
from tcmoa_runtime.streams.interfaces import SinkError, SourceError, SourceFrame

MILLISECOND = Fraction(1, 1000)


WAIT_SECONDS = 60
"""Longest wait for what happens at once on an idle machine."""


def wait_until(condition, problem="did not happen in time"):
    """Wait until a condition is met; busy machines take seconds for what takes milliseconds otherwise."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.005)


def numbered(number, size=(100, 130), channels=3):
    """A frame whose pixels encode its number."""
    image = np.empty((*size, channels), np.uint8)
    image[...] = (number % 256, number // 256 % 256, 77)[:channels]
    return image


def number_of(image):
    """The number that a frame from `numbered`, or the frame fused from it, encodes."""
    return int(image[0, 0, 0]) + 256 * int(image[0, 0, 1])


def source_frame(index, milliseconds, *, arrived=0.0, image=None):
    """A frame with a time; of 2x2 pixels unless an image is given."""
    image = np.zeros((2, 2, 3), np.uint8) if image is None else image
    return SourceFrame(image, milliseconds, MILLISECOND, arrived, index)


class ScriptedSource:
    """A file with frames at `milliseconds`, which fails after `fails_after` of them."""

    live, time_base = False, MILLISECOND

    def __init__(
        self, milliseconds, *, name="scripted", rate=None, size=(100, 130), fails_after=None, images=None
    ):
        self.name, self.rate, self.size = name, rate, size
        self.frames = self.errors = self.reconnects = 0
        self.closed = False
        self._milliseconds, self._fails_after, self._images = milliseconds, fails_after, images

    def read(self):
        if self.frames == self._fails_after:
            raise SourceError("broke", subject=self.name)
        if self.closed or self.frames == len(self._milliseconds):
            return None
        index = self.frames
        self.frames += 1
        image = numbered(index, self.size) if self._images is None else self._images[index]
        return SourceFrame(image, self._milliseconds[index], self.time_base, time.monotonic(), index)

    def close(self):
        self.closed = True


class LiveSource:
    """A camera at `rate` frames per second, on a clock of its own that starts at `epoch` milliseconds.

    `hook(index)` may return "drop", "end", "die", a number of seconds to stall before the frame, or a callable that
    changes its milliseconds.
    """

    live, time_base = True, MILLISECOND

    def __init__(
        self, rate, *, name="camera", size=(100, 130), epoch=0, hook=lambda index: None, images=None
    ):
        self.name, self.rate, self.size = name, Fraction(rate), size
        self.frames = self.errors = self.reconnects = 0
        self._hook, self._epoch, self._images = hook, epoch, images
        self._closed = threading.Event()
        self._start = None
        self._position = 0

    def read(self):
        if self._start is None:
            self._start = time.monotonic()
        while True:
            index = self._position
            self._position += 1
            action = self._hook(index)
            if action == "end":
                return None
            if action == "die":
                raise SourceError("died", subject=self.name)
            if isinstance(action, float) and self._closed.wait(action):
                return None
            due = self._start + index / float(self.rate)
            if self._closed.wait(max(0.0, due - time.monotonic())):
                return None
            if action == "drop":
                continue
            milliseconds = self._epoch + round(index * 1000 / float(self.rate))
            if callable(action):
                milliseconds = action(milliseconds)
            image = numbered(index, self.size) if self._images is None else self._images(index)
            self.frames += 1
            return SourceFrame(image, milliseconds, self.time_base, time.monotonic(), self.frames - 1)

    def close(self):
        self._closed.set()


class ListSink:
    """Keeps the frames that it was given, and counts the calls."""

    def __init__(
        self,
        name="list",
        *,
        lossless=True,
        seconds=0.0,
        fails_at=None,
        fails_open=False,
        keep=10_000,
        error=SinkError,
    ):
        self.name, self.lossless = name, lossless
        self.stream_format, self.frames, self.opened, self.closed, self.threads = None, [], 0, 0, set()
        self._seconds, self._fails_at, self._fails_open, self._keep = seconds, fails_at, fails_open, keep
        self._error = error

    def open(self, stream_format):
        self.opened += 1
        self.stream_format = stream_format
        self.threads.add(threading.get_ident())
        if self._fails_open:
            raise SinkError("cannot be opened", subject=self.name)

    def write(self, frame):
        assert not self.closed
        self.threads.add(threading.get_ident())
        if len(self.frames) == self._fails_at:
            raise self._error("is full", subject=self.name)
        if self._seconds:
            time.sleep(self._seconds)
        if len(self.frames) < self._keep:
            self.frames.append(frame)

    def close(self):
        self.closed += 1
        self.threads.add(threading.get_ident())


class CopyingBackend:
    """Returns x as the fused frame after `seconds`; prompts are 0.5 + scale * 0.1 + shift."""

    name = "copying"

    def __init__(self, bundle, seconds=0.0):
        self.bundle, self.seconds, self.calls, self.fails_at = bundle, seconds, [], None

    def infer(self, inputs):
        if len(self.calls) == self.fails_at:
            raise RuntimeError("the backend broke")
        self.calls.append({name: array.copy() for name, array in inputs.items() if array.dtype == np.float32})
        if self.seconds:
            time.sleep(self.seconds)
        fused = inputs[X]
        if fused.shape[-1] == 1:
            fused = np.repeat(fused, 3, axis=-1)
        prompt = 0.5 + inputs["prompt_scale"] * 0.1 + inputs["prompt_shift"]
        both = np.stack([prompt, 1 - prompt], axis=1)[:, None]
        return {FUSED: fused.copy(), PROMPT: np.repeat(both, 2, axis=1).astype(np.float32)}

    def close(self):
        pass


def copying_fuser(bundle, seconds=0.0, *, fit="exact"):
    """A fuser of a real bundle whose backend returns x."""
    return Fuser(bundle, CopyingBackend(bundle, seconds), fit=fit)
