"""Reading and pairing on threads, without a fuser."""

import threading
import time
from fractions import Fraction

import pytest

from stream_pieces import LiveSource, ScriptedSource, source_frame
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams import backlog
from tcmoa_runtime.streams.backlog import Backlog
from tcmoa_runtime.streams.fusing import OutputClock
from tcmoa_runtime.streams.interfaces import SourceError
from tcmoa_runtime.streams.reading import FilePairer, LivePairer, SourceReader
from tcmoa_runtime.streams.stats import Stats

NAMES = {"x": "visible", "y": "thermal"}


def reader_of(x, y, pairer, stats):
    errors = []
    reader = SourceReader(
        {"x": x, "y": y}, pairer, stats, on_source_error=errors.append, on_error=errors.append
    )
    return reader, errors


def test_files_are_read_ahead_by_a_few_frames_only():
    x, y = (ScriptedSource([40 * i for i in range(100)]) for _ in "xy")
    stats = Stats()
    pairer = FilePairer(StreamOptions(), (None, None), stats)
    reader, errors = reader_of(x, y, pairer, stats)
    reader.start()
    pairs = pairer.pairs()
    assert next(pairs).time == 0
    assert x.frames < 10
    assert [pair.x.frame.index for pair in pairs] == list(range(1, 100))
    reader.join(time.monotonic() + 60)
    assert errors == []
    assert x.closed
    assert y.closed


def test_stopping_ends_the_pairs_of_files_that_wait():
    x, y = (ScriptedSource([40 * i for i in range(100)]) for _ in "xy")
    stats = Stats()
    pairer = FilePairer(StreamOptions(), (None, None), stats)
    reader, _ = reader_of(x, y, pairer, stats)
    reader.start()
    pairs = pairer.pairs()
    next(pairs)
    reader.stop()
    list(pairs)
    reader.join(time.monotonic() + 60)
    assert reader.is_stopping


def test_stopping_wakes_a_live_pairer_without_frames():
    pairer = LivePairer(StreamOptions(), (None, None), Stats(), NAMES)
    found = []
    waiting = threading.Thread(target=lambda: found.extend(pairer.pairs()))
    waiting.start()
    pairer.stop()
    waiting.join(60)
    assert not waiting.is_alive()
    assert found == []


def test_a_live_source_that_fails_is_the_reason_of_its_loss():
    pairer = LivePairer(StreamOptions(on_loss="stop"), (None, None), Stats(), NAMES)
    error = SourceError("died", subject="visible")
    pairer.deliver("y", source_frame(0, 0))
    pairer.end("x", error)
    with pytest.raises(SourceError) as caught:
        list(pairer.pairs())
    assert caught.value is error


def test_a_failing_source_is_recorded_and_the_other_one_goes_on():
    x, y = LiveSource(200, hook=lambda i: "die" if i == 3 else None), LiveSource(200)
    stats = Stats()
    pairer = LivePairer(StreamOptions(on_loss="pass"), (x.rate, y.rate), stats, NAMES)
    reader, errors = reader_of(x, y, pairer, stats)
    reader.start()
    for pair in pairer.pairs():
        if pair.status == "passed-y":
            break
    reader.stop()
    reader.join(time.monotonic() + 60)
    assert set(reader.failures) == {"x"}
    assert errors == [reader.failures["x"]]
    assert stats.snapshot()["sources"]["x"]["frames"] == 3


class OpenedEarlier:
    """A live source whose first frame is 5.5 s old, with more in its buffer; current frames come every 40 ms.

    Within the buffered frames the network pauses once for 100 ms.
    """

    name, live, rate, size = "camera", True, Fraction(25), (2, 2)

    def __init__(self, num_buffered):
        self.index, self.num_buffered = 0, num_buffered
        self.opened = time.monotonic() - 5.5

    def read(self):
        index, self.index = self.index, self.index + 1
        if index == self.num_buffered // 2:
            time.sleep(0.1)
        if index > self.num_buffered:
            time.sleep(0.04)
        arrived = self.opened if index == 0 else time.monotonic()
        return source_frame(index, 40 * index, arrived=arrived) if index < self.num_buffered + 60 else None

    def close(self):
        self.index = self.num_buffered + 60


def test_a_live_stream_begins_with_the_newest_of_both(monkeypatch):
    """The other source took 5.5 s to open; meanwhile frames have piled up."""
    monkeypatch.setattr(backlog, "STEADY_SECONDS", 0.8)  # the machine may stall while they are read
    x, y = OpenedEarlier(130), LiveSource(25)
    stats = Stats()
    pairer = LivePairer(StreamOptions(), (x.rate, y.rate), stats, NAMES)
    reader, errors = reader_of(x, y, pairer, stats)
    reader.start()
    first = next(pairer.pairs())
    reader.stop()
    reader.join(time.monotonic() + 60)
    assert errors == []
    assert first.status == "fused"
    assert first.x.frame.index > 130
    assert stats.snapshot()["dropped"]["x-before-start"] > 130


def holding(source, frames, delay=0.0):
    """What `Backlog.holds` returns for frames of (milliseconds, arrival), read `delay` seconds after they arrived."""
    now = iter([arrived + (0 if i else delay) for i, (_, arrived) in enumerate(frames)]).__next__
    watched = Backlog(source, clock=now)
    return [
        watched.holds(source_frame(i, milliseconds, arrived=arrived))
        for i, (milliseconds, arrived) in enumerate(frames)
    ]


def test_a_live_source_that_was_just_opened_loses_no_frame():
    assert holding(LiveSource(25), [(0, 100.0), (40, 100.05), (80, 100.1)], delay=0.1) == [False] * 3
    assert holding(ScriptedSource([0]), [(0, 0.0)], delay=9) == [False]


def test_frames_are_old_until_they_come_as_fast_as_they_were_captured():
    burst = [(0, 94.5), *((40 * i, 100 + 0.001 * i) for i in range(1, 10))]
    paused = [(400 + 40 * i, 100.2 + 0.001 * i) for i in range(10)]
    steady = [(800 + 40 * i, 100.25 + 0.04 * i) for i in range(12)]
    held = holding(LiveSource(25), burst + paused + steady, delay=5.5)
    assert held.index(False) == 27  # 0.3 s after the last frame that came faster
    assert not any(held[27:])
    endless = [(0, 94.5), *((40 * i, 100 + 0.02 * i) for i in range(200))]
    assert holding(LiveSource(25), endless, delay=5.5).index(False) == 151  # 3 s after the first


def test_output_times_increase_strictly():
    clock = OutputClock(Fraction(1, 1000), from_zero=True)
    assert [clock.pts(time) for time in (5.0, 5.0401, 5.0402, 5.04, 5.1)] == [0, 40, 41, 42, 100]
    assert OutputClock(Fraction(1, 25), from_zero=False).pts(2.0) == 50
