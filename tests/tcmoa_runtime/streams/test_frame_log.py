"""The frame log: one line of JSON for each frame, written immediately."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream_pieces import source_frame
from tcmoa_runtime import InputError
from tcmoa_runtime.streams.frame_log import FrameLog
from tcmoa_runtime.streams.interfaces import FusedFrame, SinkError, StreamFormat

FORMAT = StreamFormat(2, 2, "rgb", Fraction(1, 1000), None, live=True)


def frame(index, y=True):
    image = np.zeros((2, 2, 3), np.uint8)
    partner = source_frame(7, 310) if y else None
    age = 0.0301 if y else None
    status = "fused" if y else "passed-x"
    return FusedFrame(
        image,
        40 * index,
        Fraction(1, 1000),
        index,
        status,
        source_frame(index, 40 * index),
        partner,
        0.01,
        age,
        0.05,
    )


def test_each_frame_is_one_line_that_is_flushed(tmp_path):
    log = FrameLog(tmp_path / "frames.jsonl")
    log.open(FORMAT)
    log.write(frame(3))
    log.write(frame(4, y=False))
    before_closing = (tmp_path / "frames.jsonl").read_text().splitlines()
    log.close()
    log.close()
    first, second = map(json.loads, before_closing)
    assert first == {
        "index": 3,
        "time": 0.12,
        "pts": 120,
        "status": "fused",
        "reused": False,
        "x": {"index": 3, "pts": 120, "age_ms": 10.0},
        "y": {"index": 7, "pts": 310, "age_ms": 30.1},
        "latency_ms": 50.0,
    }
    assert (second["y"], second["status"]) == (None, "passed-x")


def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"does not exist\. Create the folder first"):
        FrameLog(tmp_path / "none" / "frames.jsonl")
    with pytest.raises(InputError, match="a folder; expected a file name"):
        FrameLog(tmp_path)


def test_a_full_disk_is_reported_in_one_line():
    log = FrameLog(Path("/dev/full"))
    log.open(FORMAT)
    with pytest.raises(SinkError, match="/dev/full: writing failed: No space left on device"):
        log.write(frame(0))
    with pytest.raises(SinkError, match="cannot be completed"):
        log.close()
