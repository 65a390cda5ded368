"""Streams: every frame of a file is emitted, live frames do not queue up, and every end closes all."""

import logging
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream_pieces import (
    CopyingBackend,
    ListSink,
    LiveSource,
    ScriptedSource,
    copying_fuser,
    number_of,
    numbered,
    wait_until,
)
from tcmoa_runtime import Fuser, InputError, Stream, TcmoaError
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.interfaces import IncompleteSourceError, SinkClosedError, SinkError, SourceError


def file(count, rate=25, **options):
    return ScriptedSource([round(i * 1000 / rate) for i in range(count)], rate=Fraction(rate), **options)


def slow_file(count, **options):
    """A file that takes 5 ms per frame to read, so that something can happen meanwhile."""
    source = file(count, **options)
    read = source.read
    source.read = lambda: (time.sleep(0.005), read())[1]
    return source


# Files


def test_every_frame_of_files_is_emitted_in_order_with_its_timestamp(bundle):
    sink = ListSink()
    stamps = [0, 40, 85, 120, 500, 540]
    stats = Stream(
        copying_fuser(bundle), ScriptedSource(stamps), file(20), StreamOptions(tolerance=1.0), sinks=[sink]
    ).run()
    assert [f.pts for f in sink.frames] == stamps
    assert {f.time_base for f in sink.frames} == {Fraction(1, 1000)}
    assert [number_of(f.image) for f in sink.frames] == list(range(6))
    assert [f.index for f in sink.frames] == list(range(6))
    assert {f.status for f in sink.frames} == {"fused"}
    assert stats.snapshot()["frames"] == 6
    assert (sink.opened, sink.closed, len(sink.threads)) == (1, 1, 1)
    assert (sink.stream_format.height, sink.stream_format.width, sink.stream_format.live) == (100, 130, False)


def test_iterating_gives_the_frames(bundle):
    with Stream(copying_fuser(bundle), file(10), file(10)) as stream:
        assert [number_of(frame.image) for frame in stream] == list(range(10))


def test_a_slow_consumer_of_files_loses_nothing(bundle):
    seen = []
    with Stream(copying_fuser(bundle), file(30), file(30)) as stream:
        for frame in stream:
            time.sleep(0.005)
            seen.append(frame.index)
    assert seen == list(range(30))
    assert stream.stats.snapshot()["dropped"] == {}


def test_a_slow_sink_of_files_loses_nothing(bundle):
    sink = ListSink(seconds=0.01)
    Stream(copying_fuser(bundle), file(30), file(30), sinks=[sink]).run()
    assert [f.index for f in sink.frames] == list(range(30))


def test_a_window_beside_a_file_may_miss_frames_but_does_not_slow_it(bundle):
    window, kept = ListSink("window", lossless=False, seconds=0.05), ListSink()
    stats = Stream(copying_fuser(bundle), file(50), file(50), sinks=[window, kept]).run()
    assert len(kept.frames) == 50
    assert 1 <= len(window.frames) < 50
    assert stats.snapshot()["dropped"]["sink-window"] == 50 - len(window.frames)


def test_the_callback_gets_every_frame(bundle):
    seen = []
    Stream(copying_fuser(bundle), file(12), file(12), on_frame=seen.append).run()
    assert [f.index for f in seen] == list(range(12))


def test_a_stream_ends_after_the_given_number_of_frames(bundle):
    sink = ListSink()
    Stream(copying_fuser(bundle), file(1000), file(1000), StreamOptions(frames=7), sinks=[sink]).run()
    assert len(sink.frames) == 7
    assert sink.closed == 1


def test_leaving_the_loop_closes_sources_and_sinks(bundle):
    x, sink = slow_file(1000), ListSink()
    with Stream(copying_fuser(bundle), x, file(1000), sinks=[sink]) as stream:
        for frame in stream:
            if frame.index == 3:
                break
    assert x.closed
    assert sink.closed == 1
    assert len(sink.frames) < 100


def test_stop_from_another_thread_finishes_sinks(bundle):
    sink = ListSink()
    stream = Stream(copying_fuser(bundle), slow_file(100_000), file(100_000), sinks=[sink])
    running = threading.Thread(target=stream.run)
    running.start()
    wait_until(lambda: len(sink.frames) > 5)
    stream.stop()
    running.join(60)
    assert not running.is_alive()
    assert sink.closed == 1
    assert [f.index for f in sink.frames] == list(range(len(sink.frames)))


def test_files_start_together_unless_their_timestamps_are_used(bundle):
    def skews(**options):
        sink = ListSink()
        x, y = ScriptedSource([1400, 1440, 1480]), ScriptedSource([0, 40, 80])
        Stream(copying_fuser(bundle), x, y, StreamOptions(**options), sinks=[sink]).run()
        return [(f.status, f.y and f.y.index) for f in sink.frames]

    assert skews() == [("fused", 0), ("fused", 1), ("fused", 2)]
    assert skews(offset=-0.04) == [("fused", 1), ("fused", 2), ("fused", 2)]
    assert skews(offset="timestamps")[0] == ("held-y", 2)


def test_a_different_rate_is_paired_by_time(bundle):
    sink = ListSink()
    Stream(copying_fuser(bundle), file(30, rate=30), file(9, rate=9), sinks=[sink]).run()
    expected = [
        min(range(9), key=lambda j: abs(round(j * 1000 / 9) - round(i * 1000 / 30))) for i in range(30)
    ]
    assert [f.y.index for f in sink.frames] == expected
    assert all(f.age_x == 0 for f in sink.frames)
    assert max(f.age_y for f in sink.frames[:-2]) <= 1 / 18 + 0.001  # y ends before x does


def test_a_leading_file_that_fails_is_an_error_after_its_frames_were_emitted(bundle):
    sink = ListSink()
    stream = Stream(copying_fuser(bundle), file(10, fails_after=6), file(10), sinks=[sink])
    with pytest.raises(SourceError, match="broke"):
        stream.run()
    assert len(sink.frames) == 6
    assert sink.closed == 1


def test_a_partner_that_fails_is_held_and_an_error_at_the_end(bundle):
    """The loss policy fills the gap, but the output is not what two complete files give."""
    sink = ListSink()
    stream = Stream(copying_fuser(bundle), file(10), file(10, fails_after=3), sinks=[sink])
    with pytest.raises(SourceError, match="scripted: broke"):
        stream.run()
    assert len(sink.frames) == 10
    assert [f.status for f in sink.frames][-1] == "held-y"
    assert stream.notes == ["scripted: broke"]


# Live


def test_behind_a_slow_backend_live_frames_are_dropped(bundle):
    sink = ListSink()
    x, y = LiveSource(60), LiveSource(60, name="other")
    options = StreamOptions(
        frames=20, tolerance=2.0
    )  # a stall of the machine is no loss, after which frames are held
    stats = Stream(copying_fuser(bundle, 0.05), x, y, options, sinks=[sink]).run().snapshot()
    assert len(sink.frames) == 20
    assert stats["dropped"]["x-superseded"] > 20
    assert np.median([f.age_x for f in sink.frames[1:]]) < 0.05 + 0.05
    numbers = [number_of(f.image) for f in sink.frames]
    assert numbers == sorted(set(numbers))
    pts = [f.pts for f in sink.frames]
    assert pts[0] == 0
    assert pts == sorted(set(pts))


def test_sources_on_different_clocks_are_paired_by_their_arrival(bundle):
    sink = ListSink()
    x, y = LiveSource(40, epoch=5_000_000), LiveSource(40, name="other", epoch=77)
    options = StreamOptions(frames=30, tolerance=2.0)
    stats = Stream(copying_fuser(bundle), x, y, options, sinks=[sink]).run().snapshot()
    assert {f.status for f in sink.frames} == {"fused"}
    assert stats["skew_ms"]["p50"] < 40  # their own clocks are 80 minutes apart


def test_a_live_source_that_fails_is_held_and_then_the_other_one_passed(bundle):
    sink = ListSink()
    y = LiveSource(50, name="thermal", hook=lambda i: "die" if i == 10 else None)
    stream = Stream(
        copying_fuser(bundle), LiveSource(50), y, StreamOptions(frames=60, hold=0.3), sinks=[sink]
    )
    stream.run()
    statuses = [f.status for f in sink.frames]
    changes = [s for i, s in enumerate(statuses) if i == 0 or s != statuses[i - 1]]
    assert changes[-3:] == ["fused", "held-y", "passed-x"]  # before it fails, y may be late on a busy machine
    assert stream.notes == ["thermal: died"]
    assert sink.frames[-1].y is None
    assert sink.frames[-1].age_y is None


def test_a_file_that_was_cut_is_an_error_in_real_time_too(bundle):
    y = LiveSource(50, name="cut.mp4")
    read = y.read

    def read_until_cut():
        if y.frames == 5:
            raise IncompleteSourceError("ends early", subject=y.name)
        return read()

    y.read = read_until_cut
    stream = Stream(copying_fuser(bundle), LiveSource(50), y, StreamOptions(frames=20), sinks=[ListSink()])
    with pytest.raises(SourceError, match=r"cut\.mp4: ends early"):
        stream.run()
    assert stream.stats.snapshot()["frames"] == 20


def test_two_failed_sources_are_an_error(bundle):
    die = {"hook": lambda i: "die" if i == 5 else None}
    stream = Stream(copying_fuser(bundle), LiveSource(50, **die), LiveSource(50, **die), sinks=[ListSink()])
    with pytest.raises(SourceError, match="died"):
        stream.run()


def test_stop_on_loss_names_the_lost_source(bundle):
    y = LiveSource(50, name="thermal", hook=lambda i: 30.0 if i == 5 else None)
    sink = ListSink()
    options = StreamOptions(on_loss="stop", tolerance=0.6)  # x may be late on a busy machine
    stream = Stream(copying_fuser(bundle), LiveSource(50), y, options, sinks=[sink])
    with pytest.raises(SourceError, match=r"thermal: no frame for .* s, and the stream ends when y is lost"):
        stream.run()
    assert sink.closed == 1


def test_when_x_is_lost_y_passes_alone_in_all_three_channels(bundle):
    sink = ListSink()
    x = LiveSource(50, hook=lambda i: "die" if i == 5 else None)
    y = LiveSource(50, images=lambda i: np.full((100, 130), 50 + i, np.uint8))
    Stream(copying_fuser(bundle), x, y, StreamOptions(frames=20, on_loss="pass"), sinks=[sink]).run()
    last = sink.frames[-1]
    assert last.status == "passed-y"
    assert last.image.shape == (100, 130, 3)
    assert len(np.unique(last.image)) == 1


def test_after_a_counted_clock_jump_the_sources_are_paired_again(bundle):
    sink = ListSink()
    y = LiveSource(50, hook=lambda i: (lambda ms: ms - 4000) if i >= 25 else None)
    options = StreamOptions(
        frames=60, tolerance=2.0
    )  # less than the jump, and more than the machine may stall
    stats = Stream(copying_fuser(bundle), LiveSource(50), y, options, sinks=[sink]).run().snapshot()
    assert stats["sources"]["y"]["clock_jumps"] == 1
    assert [f.status for f in sink.frames][-20:] == ["fused"] * 20


def test_a_size_that_changes_is_adapted_and_counted(bundle):
    sink = ListSink()
    sizes = [(100, 130)] * 5 + [(50, 65)] * 5 + [(100, 130)] * 2
    y = file(12, images=[np.zeros((*size, 3), np.uint8) for size in sizes])
    stats = Stream(copying_fuser(bundle), file(12), y, sinks=[sink]).run().snapshot()
    assert len(sink.frames) == 12
    assert stats["sources"]["y"]["size_changes"] == 2


def test_a_blocked_window_does_not_delay_a_live_stream(bundle):
    release = threading.Event()

    class Stuck(ListSink):
        def write(self, frame):
            release.wait(120)

    kept = ListSink()
    stream = Stream(
        copying_fuser(bundle),
        LiveSource(100),
        LiveSource(100),
        StreamOptions(frames=40),
        sinks=[Stuck("window", lossless=False), kept],
    )
    running = threading.Thread(target=stream.run)
    running.start()
    wait_until(lambda: len(kept.frames) >= 38)
    release.set()
    running.join(60)
    assert not running.is_alive()


def test_a_slow_live_consumer_sees_only_new_frames(bundle):
    ages = []
    with Stream(copying_fuser(bundle), LiveSource(100), LiveSource(100), StreamOptions(frames=100)) as stream:
        for frame in stream:
            ages.append(time.monotonic() - frame.x.arrived)
            time.sleep(0.05)
    assert len(ages) < 60
    assert stream.stats.snapshot()["dropped"]["consumer"] > 30
    assert np.median(ages) < 0.3  # in a queue they would become older than 2 s


def test_memory_of_a_live_stream_is_flat(bundle):
    """Unreachable frames are freed: there are never more than queues can hold."""
    alive = Counter()

    class Tracked(np.ndarray):
        pass

    def image(index):
        frame = numbered(index).view(Tracked)
        alive["now"] += 1
        weakref.finalize(frame, alive.subtract, ["now"])
        return frame

    counts = []
    stream = Stream(
        copying_fuser(bundle, 0.01),
        LiveSource(200, images=image),
        LiveSource(200, images=image),
        StreamOptions(frames=100),
        on_frame=lambda frame: counts.append(alive["now"]) if frame.index % 10 == 9 else None,
    )
    stream.run()
    assert max(counts) < 45
    assert max(counts[5:]) <= max(counts[:5]) + 8


# Control, prompts


def test_scale_and_shift_change_while_it_runs(bundle):
    fuser = copying_fuser(bundle)
    with Stream(fuser, slow_file(60), file(60), StreamOptions(ramp=0.0)) as stream:
        for frame in stream:
            if frame.index == 10:
                stream.control.set(scale=2.0, shift=0.25)
                at = len(fuser.backend.calls)
    after = fuser.backend.calls[at + 2 :]
    assert len(after) > 10
    assert all((c["prompt_scale"] == 2.0).all() and (c["prompt_shift"] == 0.25).all() for c in after)
    assert (fuser.backend.calls[0]["prompt_scale"] == 1.0).all()


def test_alpha_1_and_beta_0_change_no_bit(vif):
    rng = np.random.default_rng(3)
    images = [list(rng.integers(0, 256, (3, 100, 130, 3), np.uint8)) for _ in range(2)]
    outputs = []
    with Fuser.load(vif) as fuser:
        expected = [fuser(x, y) for x, y in zip(*images, strict=True)]
        for control in (False, True):
            x, y = (file(3, images=i) for i in images)
            with Stream(fuser, x, y) as stream:
                if control:
                    stream.control.set(scale=1.0, shift=0.0)
                outputs.append([frame.image for frame in stream])
    np.testing.assert_array_equal(outputs[0], expected)
    np.testing.assert_array_equal(outputs[1], expected)


def test_frames_have_prompts_if_the_bundle_outputs_them(bundle, plain_bundle):
    for given, shape in ((bundle, (2, 2, 13, 17)), (plain_bundle, None)):
        with Stream(copying_fuser(given), file(2), file(2)) as stream:
            assert {None if f.prompt is None else f.prompt.shape for f in stream} == {shape}


# Errors


def test_a_wrong_size_is_refused_before_anything_starts(bundle):
    x, sink = file(3, size=(64, 64)), ListSink()
    with pytest.raises(InputError, match="x is 64x64; expected 130x100, the size of this bundle"):
        Stream(copying_fuser(bundle), x, file(3), sinks=[sink])
    assert x.closed
    assert not sink.opened


def test_a_fuser_that_resizes_takes_any_size_and_gives_that_of_x(bundle):
    sink = ListSink()
    Stream(
        copying_fuser(bundle, fit="resize"), file(3, size=(50, 65)), file(3, size=(200, 260)), sinks=[sink]
    ).run()
    assert {f.image.shape for f in sink.frames} == {(50, 65, 3)}
    assert (sink.stream_format.height, sink.stream_format.width) == (50, 65)


def test_beside_a_sink_that_cannot_be_opened_the_others_get_every_frame(bundle, caplog):
    x, kept = file(3), ListSink("kept")
    failing = [ListSink(name, fails_open=True, lossless=name == "file") for name in ("file", "network")]
    stream = Stream(copying_fuser(bundle), x, file(3), sinks=[failing[0], kept, failing[1]])
    with pytest.raises(SinkError, match="file: cannot be opened"):
        stream.run()
    assert (len(kept.frames), kept.closed, x.closed) == (3, 1, True)
    assert [str(error) for error in stream.failed_outputs.values()] == [
        "file: cannot be opened",
        "network: cannot be opened",
    ]
    assert [record.message for record in caplog.records] == [
        "file: cannot be opened; the other outputs go on",
        "network: cannot be opened",
    ]
    assert stream.stats.snapshot()["dropped"] == {"sink-file": 3, "sink-network": 3}


def test_if_no_sink_can_be_opened_nothing_is_read(bundle):
    x, y = file(3), file(3)
    sinks = [ListSink(name, fails_open=True) for name in ("first", "second")]
    stream = Stream(copying_fuser(bundle), x, y, sinks=sinks)
    with pytest.raises(SinkError, match="first: cannot be opened"):
        stream.run()
    assert isinstance(stream.error, SinkError)
    assert stream.notes == ["second: cannot be opened"]
    assert (x.frames, x.closed, y.closed) == (0, True, True)


def test_a_consumer_gets_every_frame_beside_a_sink_that_cannot_be_opened(bundle):
    stream = Stream(copying_fuser(bundle), file(3), file(3), sinks=[ListSink("bad", fails_open=True)])
    frames = []
    with pytest.raises(SinkError, match="bad: cannot be opened"):
        frames.extend(frame.index for frame in stream)
    assert stream.stats.snapshot()["frames"] == 3


def test_after_two_of_three_sinks_have_failed_the_third_goes_on(bundle):
    failing = [
        ListSink(name, fails_at=at) for name, at in (("a", 2), ("b", 20))
    ]  # more apart than the queues hold
    kept = ListSink("kept")
    stream = Stream(copying_fuser(bundle), slow_file(30), file(30), sinks=[*failing, kept])
    with pytest.raises(SinkError, match="a: is full"):
        stream.run()
    assert len(kept.frames) == 30
    assert set(stream.failed_outputs) == {"a", "b"}


def test_a_full_disk_ends_a_stream_without_other_outputs(bundle):
    full = ListSink("full", fails_at=5)
    stream = Stream(copying_fuser(bundle), slow_file(1000), file(1000), sinks=[full])
    with pytest.raises(SinkError, match="full: is full"):
        stream.run()
    assert (len(full.frames), full.closed) == (5, 1)
    assert stream.stats.snapshot()["frames"] < 1000


def test_beside_a_window_a_full_disk_is_reported_at_the_end(bundle):
    full, window = ListSink("full", fails_at=5), ListSink("window", lossless=False)
    stream = Stream(copying_fuser(bundle), slow_file(30), file(30), sinks=[full, window])
    with pytest.raises(SinkError, match="full: is full"):
        stream.run()
    assert (len(full.frames), full.closed, window.closed) == (5, 1, 1)
    assert stream.stats.snapshot()["frames"] == 30


def test_beside_another_file_a_full_one_is_reported_at_the_end(bundle):
    full, kept = ListSink("full", fails_at=5), ListSink("kept")
    with pytest.raises(SinkError, match="full: is full"):
        Stream(copying_fuser(bundle), file(30), file(30), sinks=[full, kept]).run()
    assert len(kept.frames) == 30


def test_a_window_that_is_closed_is_only_noted(bundle):
    window = ListSink("window", lossless=False, fails_at=1, error=SinkClosedError)
    kept = ListSink("kept")
    stream = Stream(copying_fuser(bundle), file(30), file(30), sinks=[window, kept])
    stream.run()
    assert stream.notes == ["window: is full"]
    assert stream.failed_outputs == {}
    assert len(kept.frames) == 30


def test_closing_the_only_window_ends_the_stream(bundle):
    window = ListSink("window", lossless=False, fails_at=1, error=SinkClosedError)
    stream = Stream(copying_fuser(bundle), slow_file(1000), file(1000), sinks=[window])
    stream.run()
    assert (stream.error, len(window.frames)) == (None, 1)


def test_a_page_that_fails_beside_a_file_is_an_error_at_the_end(bundle):
    page, kept = ListSink("page", lossless=False, fails_at=1), ListSink("kept")
    with pytest.raises(SinkError, match="page: is full"):
        Stream(copying_fuser(bundle), file(30), file(30), sinks=[page, kept]).run()
    assert len(kept.frames) == 30


def test_an_error_in_the_callers_function_reaches_the_caller(bundle):
    def fail(frame):
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        Stream(copying_fuser(bundle), slow_file(1000), file(1000), on_frame=fail).run()


def test_an_error_of_the_backend_reaches_the_caller(bundle):
    fuser = copying_fuser(bundle)
    fuser.backend.fails_at = 3
    sink = ListSink()
    with pytest.raises(RuntimeError, match="the backend broke"):
        Stream(fuser, file(10), file(10), sinks=[sink]).run()
    assert (len(sink.frames), sink.closed) == (3, 1)


def test_any_other_error_of_a_source_reaches_the_caller(bundle):
    x = file(10)
    read = x.read
    x.read = lambda: read() if x.frames < 3 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        Stream(copying_fuser(bundle), x, file(10)).run()


def test_notes_are_logged(bundle, caplog):
    stream = Stream(copying_fuser(bundle), file(10), file(10, fails_after=3))
    with pytest.raises(SourceError):
        stream.run()
    assert ("tcmoa.streams", logging.WARNING, "scripted: broke") in caplog.record_tuples
    assert stream.notes == ["scripted: broke"]


LEFT_OPEN = """
import sys
sys.path[:0] = [sys.argv[1]]
from stream_pieces import ListSink, LiveSource
from tcmoa_runtime import Fuser, Stream
fuser = Fuser.load(sys.argv[2])
stream = Stream(fuser, LiveSource(200), LiveSource(200), sinks=[ListSink()])
frames = iter(stream)
next(frames)
print("left open", flush=True)
"""


def test_a_stream_that_is_left_open_ends_with_the_interpreter(vif):
    folder = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", LEFT_OPEN, folder, str(vif)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left open\n", "")


def test_a_stream_runs_once(bundle):
    stream = Stream(copying_fuser(bundle), file(2), file(2))
    stream.run()
    with pytest.raises(TcmoaError, match="runs once"):
        stream.run()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offset": "soon"}, "offset: 'soon'; expected seconds, auto or timestamps"),
        ({"offset": float("inf")}, "offset"),
        ({"frames": 0}, "frames: 0; expected a whole number"),
        ({"ramp": "slow"}, "ramp: 'slow'; expected seconds"),
    ],
)
def test_wrong_options_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        StreamOptions(**options)


def test_an_option_that_the_network_has_no_use_for_closes_the_sources(bundle):
    x, y = file(2), file(2)
    with pytest.raises(InputError, match="hold_extremes: 2 s, but this network stretches no picture"):
        Stream(copying_fuser(bundle), x, y, StreamOptions(hold_extremes=2))
    assert x.closed
    assert y.closed


def test_a_stream_that_never_ran_closes_its_sources(bundle):
    x, y = file(2), file(2)
    Stream(copying_fuser(bundle), x, y).close()
    assert x.closed
    assert y.closed


def test_the_backend_is_left_to_its_owner(bundle):
    backend = CopyingBackend(bundle)
    backend.close = lambda: pytest.fail("closed")
    Stream(Fuser(bundle, backend), file(2), file(2)).run()
