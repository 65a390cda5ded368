"""Reading and pairing on threads, without a fuser."""

import threading
import time
from fractions import Fraction

import pytest

from stream_pieces import LiveSource, ScriptedSource, source_frame
from tcmoa_runtime.options.stream import StreamOptions
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


def test_output_times_increase_strictly():
    clock = OutputClock(Fraction(1, 1000), from_zero=True)
    assert [clock.pts(time) for time in (5.0, 5.0401, 5.0402, 5.04, 5.1)] == [0, 40, 41, 42, 100]
    assert OutputClock(Fraction(1, 25), from_zero=False).pts(2.0) == 50
