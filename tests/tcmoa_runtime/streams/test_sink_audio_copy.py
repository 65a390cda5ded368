"""Copying the audio and the metadata of a source into the output."""

import subprocess
from pathlib import Path

import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.streams.interfaces import SinkError
from tcmoa_runtime.streams.sinks import SinkOptions, open_sink
from video_pieces import FFMPEG, FFPROBE, audio_of, gradient, probe, write

av = pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
pytestmark = pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)


@pytest.fixture
def with_sound(tmp_path):
    path = tmp_path / "x.mp4"
    subprocess.run(
        [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc=size=96x64:rate=25:duration=2", "-f", "lavfi", "-i",
         "sine=frequency=440:duration=4", "-metadata", "title=night drive", "-c:a", "aac", path],
        check=True,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_audio_and_metadata_are_copied_unchanged(tmp_path, with_sound, name):
    path = write(tmp_path / name, [gradient(i) for i in range(50)], copy_from=with_sound)
    codecs, times, tags = audio_of(path)
    assert codecs == ["h264", "aac"]
    assert {k.lower(): v for k, v in tags.items()}["title"] == "night drive"
    assert min(times) == pytest.approx(min(audio_of(with_sound)[1]), abs=0.03)
    assert 1.8 < max(times) < 2.1  # cut where the video ends
    assert probe(path)[0]["nb_read_frames"] == "50"


def test_a_source_that_cannot_be_copied_is_refused_at_once(tmp_path, with_sound):
    with pytest.raises(SinkError, match="not a file; expected a video file, whose audio"):
        open_sink(str(tmp_path / "v.mp4"), SinkOptions(copy_from=Path("rtsp://camera/x")))
    with pytest.raises(InputError, match=r"copied into video files only; expected FILE\.mp4"):
        open_sink(f"{tmp_path}/frames/", SinkOptions(copy_from=with_sound))
    (tmp_path / "t.mp4").write_text("no video")
    with pytest.raises(SinkError, match="cannot be copied: Invalid data"):
        open_sink(str(tmp_path / "v.mp4"), SinkOptions(copy_from=tmp_path / "t.mp4"))
