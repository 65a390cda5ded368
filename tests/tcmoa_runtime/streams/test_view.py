"""Views: comparisons of the fused frame with its sources."""

import numpy as np
import pytest

from stream_pieces import source_frame
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.streams.sinks import SinkOptions, open_sink
from video_pieces import FFMPEG, FFPROBE, HEIGHT, WIDTH, fused, gradient, probe, stream_format, write


def test_side_by_side_shows_x_fused_and_y(tmp_path):
    x = source_frame(0, 0, image=np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
    y = source_frame(0, 0, image=np.full((HEIGHT // 2, WIDTH // 2), 90, np.uint8))
    sink = open_sink(f"{tmp_path}/%d.png", SinkOptions(view="side-by-side"))
    sink.open(stream_format())
    sink.write(fused(0, gradient(0), x=x, y=y))
    sink.write(fused(1, gradient(1), x=x))
    sink.close()
    both, alone = read_frame(tmp_path / "0.png"), read_frame(tmp_path / "1.png")
    assert both.shape == (HEIGHT, 3 * WIDTH, 3)
    assert (both[:, :WIDTH] == 200).all()
    np.testing.assert_array_equal(both[:, WIDTH : 2 * WIDTH], gradient(0))
    assert (both[:, 2 * WIDTH :] == 90).all()
    assert (alone[:, 2 * WIDTH :] == 0).all()


def test_blend_shows_the_average_beside_the_fused_frame(tmp_path):
    x, y = (source_frame(0, 0, image=np.full((HEIGHT, WIDTH, 3), v, np.uint8)) for v in (250, 101))
    sink = open_sink(f"{tmp_path}/%d.png", SinkOptions(view="blend"))
    sink.open(stream_format())
    sink.write(fused(0, gradient(0), x=x, y=y))
    sink.close()
    got = read_frame(tmp_path / "0.png")
    assert (got[:, : WIDTH // 2] == 176).all()
    np.testing.assert_array_equal(got[:, WIDTH // 2 :], gradient(0)[:, WIDTH // 2 :])


@pytest.mark.skipif(
    not (FFPROBE and FFMPEG), reason="ffmpeg is not installed; `apt-get install ffmpeg` runs this"
)
def test_a_video_has_the_size_of_its_view(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed; `pip install 'tcmoa[stream]'` runs this")
    path = write(tmp_path / "v.mp4", [gradient(i) for i in range(3)], view="side-by-side")
    assert probe(path)[0]["width"] == 3 * WIDTH
