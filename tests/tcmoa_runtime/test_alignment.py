"""Bundles with an alignment: where it is applied, and which values are refused."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_pieces import ListSink, LiveSource, ScriptedSource, copying_fuser
from tcmoa_runtime import Bundle, BundleError, Fuser, InputError, Stream
from tcmoa_runtime.alignment import MANIFEST_KEY, Alignment, Warp, describe_matrix_fault, map_points
from tcmoa_runtime.bundle_write import derive_bundle
from tcmoa_runtime.host_fusion import MAX_WARPS
from tcmoa_runtime.images import resize_frame, to_frame
from tcmoa_runtime.options.stream import StreamOptions

SIZE = (100, 130)
MATRIX = ((1.02, 0.03, -4.5), (-0.02, 0.99, 3.25), (1e-4, -5e-5, 1.0))


def alignment(source="y", rows=MATRIX, **changes):
    values = {
        "model": "homography",
        "residual_px": 0.25,
        "score_before": 0.1,
        "score_after": 0.4,
        "pairs": 12,
        "seed": 0,
    }
    return Alignment(source, rows, **{**values, **changes})


@pytest.fixture
def aligned(exported, tmp_path):
    """Function that returns the path of a bundle with an alignment, by its name in OPTIONS."""

    def make(name="vif", source="y"):
        out = tmp_path / f"aligned {name} {source}"
        if out.exists():
            return out
        derive_bundle(Bundle.open(exported(name)), out, {MANIFEST_KEY: alignment(source).to_json()})
        return out

    return make


def load(bundle, **options):
    """Load a bundle on ONNX Runtime, which takes half of the time of OpenVINO for a small graph."""
    return Fuser.load(bundle, "onnxruntime", **options)


def warped(frame):
    return Warp(np.array(MATRIX), SIZE)(frame)


def test_a_written_alignment_is_read_back(aligned, vif):
    bundle = Bundle.open(aligned())
    assert bundle.alignment == alignment()
    np.testing.assert_array_equal(bundle.alignment.matrix, np.array(MATRIX))
    assert Bundle.open(vif).alignment is None
    assert bundle.graph_name == Bundle.open(vif).graph_name


@pytest.mark.parametrize("source", ["x", "y"])
@pytest.mark.parametrize("name", ["vif", "gray", "bgr", "batch", "resize"])
def test_fusing_equals_fusing_warped_frames_byte_for_byte(name, source, aligned, exported, four_pairs):
    x, y = (frames[:3] for frames in four_pairs)
    if name == "gray":
        y = y[..., :1]
    warped_frames = [np.stack([warped(f) for f in frames]) for frames in (x, y)]
    with load(aligned(name, source)) as fuser, load(exported(name)) as plain:
        fused = fuser(x, y)
        expected = plain(warped_frames[0], y) if source == "x" else plain(x, warped_frames[1])
        np.testing.assert_array_equal(fused, expected)
        assert (fused != plain(x, y)).mean() > 0.05
        single = fuser.with_prompt(x[0], y[0]) if fuser.bundle.contract.with_prompt else (fuser(x[0], y[0]),)
        np.testing.assert_array_equal(single[0], fused[0])


def test_frames_of_another_size_are_warped_at_the_size_of_the_bundle(aligned, exported, pair):
    x, y = (resize_frame(frame, (150, 170)) for frame in pair)
    with load(aligned(), fit="resize") as fuser, load(exported("vif"), fit="resize") as plain:
        np.testing.assert_array_equal(fuser(x, y), plain(x, warped(resize_frame(y, SIZE))))
    with (
        load(aligned(), fit="exact") as fuser,
        pytest.raises(InputError, match=r"x: 170x150; expected"),
    ):
        fuser(x, y)


def test_tiles_are_cut_from_the_frame_warped_at_its_own_size(aligned, exported, pair):
    """The move is the same share of the frame at twice the size, and for a source of another size."""
    x, y = (resize_frame(frame, (200, 260)) for frame in pair)
    with load(aligned()) as fuser, load(exported("vif")) as plain:
        matrix = fuser.bundle.alignment.matrix_at(SIZE, (200, 260))
        np.testing.assert_allclose(matrix[:2, 2], fuser.bundle.alignment.matrix[:2, 2] * 2, atol=0.6)
        moved = Warp(matrix, (200, 260))(y)
        np.testing.assert_array_equal(fuser(x, y), plain(x, moved))
        np.testing.assert_array_equal(fuser.aligned(y, "y"), moved)
        small = resize_frame(y, (100, 130))
        expected = plain(x, Warp(matrix, (200, 260))(resize_frame(small, (200, 260))))
        np.testing.assert_array_equal(fuser(x, small), expected)


def test_16_bit_and_gray_frames_are_converted_before_the_warp(aligned, exported, pair):
    x, y = pair[0], pair[1][..., 0].astype(np.uint16) * 7
    with load(aligned()) as fuser, load(exported("vif")) as plain:
        np.testing.assert_array_equal(fuser(x, y), plain(x, warped(to_frame(y, "y"))))


def test_warps_of_few_sizes_are_kept(aligned, pair):
    with load(aligned()) as fuser:
        for height in range(20, 20 + 3 * MAX_WARPS):
            fuser.aligned(resize_frame(pair[1], (height, 60)), "y")
            assert len(fuser._host._warps) <= MAX_WARPS
        np.testing.assert_array_equal(fuser.aligned(pair[1], "y"), warped(pair[1]))


def test_input_frames_are_not_modified(aligned, pair):
    copies = [frame.copy() for frame in pair]
    with load(aligned()) as fuser:
        fuser(*pair)
        assert fuser.aligned(pair[0], "x") is pair[0]
        np.testing.assert_array_equal(fuser.aligned(pair[1], "y"), warped(pair[1]))
        assert fuser.aligned(resize_frame(pair[1], (50, 60)), "y").shape == (50, 60, 3)
    for frame, copy in zip(pair, copies, strict=True):
        np.testing.assert_array_equal(frame, copy)


class GpuArray:
    """An array that claims to be in GPU memory."""

    shape = (*SIZE, 3)

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": "|u1", "data": (16, False), "version": 3}


def test_frames_on_a_gpu_are_refused_in_one_line(aligned, pair):
    class GpuBackend:
        name = "gpu"

        def infer(self, inputs):
            raise AssertionError("the backend must not be called")

        def infer_device(self, inputs, stream=None):
            raise AssertionError("the backend must not be called")

        def close(self):
            pass

    fuser = Fuser(Bundle.open(aligned()), GpuBackend())
    for x, y in ((GpuArray(), pair[1]), (pair[0], GpuArray())):
        with pytest.raises(
            InputError, match=r"aligns its sources, which needs frames in host memory. Copy .*"
        ) as caught:
            fuser(x, y)
        assert "\n" not in str(caught.value)


def test_the_command_line_fuses_with_and_inspects_an_aligned_bundle(
    aligned, exported, sources, pair, tcmoa, tmp_path
):
    bundle = aligned()
    out = tmp_path / "fused.png"
    assert tcmoa("fuse", bundle, *sources, "-o", out).code == 0
    with load(exported("vif")) as plain:
        expected = plain(pair[0], warped(pair[1]))
    np.testing.assert_array_equal(cv2.imread(str(out))[..., ::-1], expected)
    shown = tcmoa("inspect", bundle)
    assert "\nalignment  y is moved by up to " in shown.out
    assert (
        "(homography, uncertainty 0.25 pixels); gradient correlation 0.100 before, 0.400 after, 12 pairs"
        in shown.out
    )
    assert tcmoa("inspect", bundle, "--json").json["alignment"] == alignment().to_json()
    assert "alignment" not in tcmoa("inspect", exported("vif")).out


def test_a_stream_warps_frames(aligned, pair):
    frames = [pair[0], pair[1]]
    x, y = (ScriptedSource([0, 40], images=frames) for _ in "xy")
    sink = ListSink()
    Stream(
        copying_fuser(Bundle.open(aligned(source="x"))), x, y, StreamOptions(deflicker=0.5), sinks=[sink]
    ).run()
    np.testing.assert_array_equal(sink.frames[0].image, warped(pair[0]))


def test_a_source_that_is_passed_through_alone_is_warped(aligned, pair):
    sink = ListSink()
    x = LiveSource(50, hook=lambda i: "die" if i == 5 else None)
    y = LiveSource(50, images=lambda i: pair[1])
    bundle = Bundle.open(aligned())
    Stream(copying_fuser(bundle), x, y, StreamOptions(frames=12, on_loss="pass"), sinks=[sink]).run()
    assert sink.frames[-1].status == "passed-y"
    np.testing.assert_array_equal(sink.frames[-1].image, warped(pair[1]))


MALFORMED = {
    "not an object": (
        lambda a, m: m.update(alignment=[]),
        "'alignment' is []; expected a value of type dict",
    ),
    "null": (lambda a, m: m.update(alignment=None), "'alignment' is None"),
    "missing source": (lambda a, m: a.pop("source"), "'alignment.source' is None; expected 'x', 'y'"),
    "unknown source": (lambda a, m: a.update(source="z"), "'alignment.source' is 'z'"),
    "unknown model": (lambda a, m: a.update(model="rigid"), "'alignment.model' is 'rigid'"),
    "residual as text": (lambda a, m: a.update(residual_px="small"), "'alignment.residual_px' is 'small'"),
    "pairs as a bool": (lambda a, m: a.update(pairs=True), "'alignment.pairs' is True"),
    "missing matrix": (lambda a, m: a.pop("matrix"), "'alignment.matrix' is None"),
    "two rows": (lambda a, m: a["matrix"].pop(), "three lists of three numbers"),
    "four columns": (lambda a, m: a["matrix"][1].append(0.0), "three lists of three numbers"),
    "not rows": (lambda a, m: a.update(matrix=[1, 2, 3]), "three lists of three numbers"),
    "element as text": (lambda a, m: a["matrix"][0].__setitem__(0, "1"), "not a finite number"),
    "huge element": (lambda a, m: a["matrix"][0].__setitem__(2, 1e300), "not a finite number"),
    "element as a bool": (lambda a, m: a["matrix"][0].__setitem__(0, True), "not a finite number"),
    "zero": (lambda a, m: a.update(matrix=[[0.0] * 3] * 3), "maps a part of the frame to infinity"),
    "far move": (lambda a, m: a["matrix"][0].__setitem__(2, 90.0), "moves a corner by"),
    "mirror": (lambda a, m: a.update(matrix=[[-1.0, 0, 129], [0, 1.0, 0], [0, 0, 1.0]]), "of its area"),
    "horizon": (lambda a, m: a["matrix"][2].__setitem__(0, -0.01), "to infinity"),
    "999 rows": (lambda a, m: a.update(matrix=[[1.0] * 3] * 999), "…; expected three lists"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_alignment_is_refused_on_opening(fault, broken, rehash):
    change, words = MALFORMED[fault]

    def apply(manifest):
        manifest[MANIFEST_KEY] = alignment().to_json()
        change(manifest[MANIFEST_KEY], manifest)

    rehash(broken, apply)
    with pytest.raises(BundleError) as caught:
        Bundle.open(broken)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_matrix_that_folds_the_frame_is_refused():
    # The corner at the bottom right moves inside the others: the quadrilateral is not convex.
    corners = np.array([[0, 0], [129, 0], [50, 40], [0, 99]], np.float32)
    frame = np.array([[0, 0], [129, 0], [129, 99], [0, 99]], np.float32)
    matrix = cv2.getPerspectiveTransform(frame, corners)
    assert describe_matrix_fault(matrix, SIZE) is not None
    assert describe_matrix_fault(np.eye(3), SIZE) is None
    assert (
        describe_matrix_fault(np.full((3, 3), math.nan), SIZE)
        == "it holds a value that is not a finite number"
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=9))
def test_any_matrix_is_checked_without_a_warning(values):
    matrix = np.array(values).reshape(3, 3)
    problem = describe_matrix_fault(matrix, SIZE)
    assert problem is None or "\n" not in problem


def test_warping_equals_opencv_within_two_gray_levels(pair):
    matrix = np.array(MATRIX)
    expected = cv2.warpPerspective(
        pair[0],
        matrix,
        SIZE[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    result = warped(pair[0])
    assert np.abs(result.astype(int) - expected).max() <= 2
    assert np.abs(result.astype(int) - expected).mean() < 0.3
    np.testing.assert_array_equal(warped(pair[0][..., :1])[..., 0], result[..., 0])


def test_moves_by_whole_pixels_are_exact_and_edge_pixels_are_repeated(pair):
    right, down = (
        np.array([[1, 0, 5], [0, 1, 0], [0, 0, 1.0]]),
        np.array([[1, 0, 0], [0, 1, -3], [0, 0, 1.0]]),
    )
    frame = pair[0]
    result = Warp(right, SIZE)(frame)
    np.testing.assert_array_equal(result[:, :-5], frame[:, 5:])
    np.testing.assert_array_equal(result[:, -5:], np.repeat(frame[:, -1:], 5, 1))
    result = Warp(down, SIZE)(frame)
    np.testing.assert_array_equal(result[3:], frame[:-3])
    np.testing.assert_array_equal(Warp(np.eye(3), SIZE)(frame), frame)
    np.testing.assert_allclose(map_points(right, np.array([[2.0], [7.0], [1.0]])), [[7], [7]])


def test_the_matrix_maps_pixel_centers_of_the_frame_to_those_of_the_source():
    source = np.zeros((*SIZE, 1), np.uint8)
    source[40, 60] = 255
    # Enlarge by 2 about (60, 40): the pixel there stays the same.
    twice = np.array([[0.5, 0, 30], [0, 0.5, 20], [0, 0, 1.0]])
    result = Warp(twice, SIZE)(source)
    assert result[40, 60] == 255
    np.testing.assert_array_equal(result[40, 59:62, 0], result[39:42, 60, 0])
