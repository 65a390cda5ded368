"""Reading and pairing on threads, without a fuser."""

import threading
import time
from fractions import Fraction

import pytest

from stream_pieces import LiveSource, ScriptedSource, source_frame
from tcmoa_runtime.options.stream import StreamOptions
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
    reader.join(time.monotonic() + 10)
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
    reader.join(time.monotonic() + 10)
    assert reader.is_stopping


def test_stopping_wakes_a_live_pairer_without_frames():
    pairer = LivePairer(StreamOptions(), (None, None), Stats(), NAMES)
    found = []
    waiting = threading.Thread(target=lambda: found.extend(pairer.pairs()))
    waiting.start()
    pairer.stop()
    waiting.join(5)
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
    reader.join(time.monotonic() + 10)
    assert set(reader.failures) == {"x"}
    assert errors == [reader.failures["x"]]
    assert stats.snapshot()["sources"]["x"]["frames"] == 3


class OpenedEarlier:
    """A live source whose first frame is 5.5 s old, with as much in its buffer; current frames come every 40 ms."""

    name, live, rate, size = "camera", True, Fraction(25), (2, 2)

    def __init__(self, num_buffered):
        self.index, self.num_buffered = 0, num_buffered
        self.opened = time.monotonic() - 5.5

    def read(self):
        index, self.index = self.index, self.index + 1
        if index > self.num_buffered:
            time.sleep(0.04)
        arrived = self.opened if index == 0 else time.monotonic()
        return source_frame(index, 40 * index, arrived=arrived) if index < self.num_buffered + 5 else None

    def close(self):
        self.index = self.num_buffered + 5


def test_a_live_stream_begins_with_the_newest_of_both():
    """The other source took 5.5 s to open; meanwhile frames have piled up."""
    x, y = OpenedEarlier(130), LiveSource(25)
    stats = Stats()
    pairer = LivePairer(StreamOptions(), (x.rate, y.rate), stats, NAMES)
    reader, errors = reader_of(x, y, pairer, stats)
    start = time.monotonic()
    reader.start()
    first = next(pairer.pairs())
    reader.stop()
    reader.join(time.monotonic() + 10)
    assert errors == []
    assert first.status == "fused"
    assert first.x.frame.index == 131
    assert first.x.frame.arrived >= start
    assert stats.snapshot()["dropped"]["x-before-start"] == 131


def test_a_live_source_that_was_just_opened_loses_no_frame():
    backlog = Backlog(LiveSource(25), clock=lambda: 100.1)
    assert not any(backlog.holds(source_frame(i, 0, arrived=100.0), 0.0) for i in range(3))
    fast = Backlog(OpenedEarlier(0), clock=iter([100.0, 101.0, 102.0, 103.0]).__next__)
    held = [fast.holds(source_frame(i, 0, arrived=1.0), 0.0) for i in range(4)]
    assert held == [True, True, False, False]  # for 2 s at most, however fast it can be read
    assert not Backlog(ScriptedSource([0])).holds(source_frame(0, 0, arrived=0.0), 0.0)


def test_output_times_increase_strictly():
    clock = OutputClock(Fraction(1, 1000), from_zero=True)
    assert [clock.pts(time) for time in (5.0, 5.0401, 5.0402, 5.04, 5.1)] == [0, 40, 41, 42, 100]
    assert OutputClock(Fraction(1, 25), from_zero=False).pts(2.0) == 50
