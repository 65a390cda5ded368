"""Likely conventions on the shipped pairs: the right ones come first, and equal ones are said to be equal."""

import numpy as np
import pytest

from fusion_networks import (
    Net,
    color_network,
    joined_network,
    luma_network,
    maximum_network,
)
from tcmoa_export import WrapOptions, try_conventions
from tcmoa_export.wrap.tryout import candidates
from tcmoa_export.wrap.tryout.run import SampledPair, TryReport
from tcmoa_export.wrap.tryout.score import score_picture
from tcmoa_export.wrap.tryout.sheet import MAX_SHOWN, draw_sheet
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.wrap import Conventions
from tcmoa_runtime.pairs import read_frame_pair
from tcmoa_runtime.shipped_pairs import shipped_pairs


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Try at a quarter of the size."""
    monkeypatch.setattr(candidates, "WORK_SIZE", (96, 128))


def tried(path, task="vif", **given):
    return try_conventions(path, WrapOptions(task=task, conventions=Conventions(**given)))


def rank_of(report: TryReport, **answers):
    """Return the place of conventions, from 0."""
    for place, candidate in enumerate(report.candidates):
        for stated in candidate.conventions:
            if all(getattr(stated, name) == value for name, value in answers.items()):
                return place
    raise AssertionError(answers)


RIGHT = {"order": "xy", "range_in": "0..1", "range_out": "0..1"}


def test_swapped_sources_and_wrong_ranges_come_behind_the_right_ones(tmp_path):
    report = tried(luma_network(tmp_path / "net.onnx"))
    assert rank_of(report, **RIGHT) == 0
    assert rank_of(report, **{**RIGHT, "order": "yx"}) == 1
    for wrong in ("0..255", "-1..1"):
        assert rank_of(report, **{**RIGHT, "range_in": wrong}) > 1
        assert rank_of(report, **{**RIGHT, "range_out": wrong}) > 1
        assert rank_of(report, **{**RIGHT, "range_in": wrong, "range_out": wrong}) > 1
    values = [candidate.score.value for candidate in report.candidates]
    assert values == sorted(values, reverse=True)
    assert report.size is None
    assert "x enters as its luma" in report.read
    best = report.candidates[0].conventions[0]
    assert best.color_out == "chroma-x"
    assert best.given().keys() == {
        "order",
        "range_in",
        "range_out",
        "color_out",
    }  # no more than must be stated


def test_sources_that_the_network_joins_the_other_way_round(tmp_path):
    report = tried(joined_network(tmp_path / "net.onnx"), range_in="0..1", range_out="0..1")
    assert [candidate.conventions[0].order for candidate in report.candidates] == ["yx", "xy"]


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_wrong_order_of_colors_comes_behind_the_right_one(order, tmp_path):
    report = tried(color_network(tmp_path / "net.onnx", order=order), range_in="0..1")
    other = order[::-1]
    assert rank_of(report, x_content=order, range_out="0..1") == 0
    assert rank_of(report, x_content=other, range_out="0..1") == 1


def test_conventions_of_equal_pictures_are_one_candidate(tmp_path):
    report = tried(maximum_network(tmp_path / "net.onnx"))
    best = report.candidates[0]
    assert {(c.order, c.range_in, c.range_out) for c in best.conventions} == {
        (order, name, name) for order in ("xy", "yx") for name in ("0..1", "0..255", "-1..1")
    }
    assert (best.conventions[0].order, best.conventions[0].range_in) == ("xy", "0..1")  # the most usual first


def test_what_is_given_is_not_varied(tmp_path):
    report = tried(maximum_network(tmp_path / "net.onnx"), task="mef", **RIGHT, color_out="chroma-nearest")
    assert len(report.candidates) == 1
    assert report.candidates[0].conventions == (Conventions(**RIGHT, color_out="chroma-nearest"),)


def test_a_network_of_one_size_is_tried_at_its_size(tmp_path):
    net = Net()
    names = [net.input(name, 1) for name in ("vis", "ir")]
    path = net.write(tmp_path / "net.onnx", net.op("Mean", *names), 1)
    import onnx

    model = onnx.load(path)
    for info in (*model.graph.input, *model.graph.output):
        dims = info.type.tensor_type.shape.dim
        dims[2].dim_value, dims[3].dim_value = 40, 56
    onnx.save(model, path)
    report = tried(path)
    assert report.size == (40, 56)
    assert report.candidates[0].pictures[0].shape == (40, 56, 3)
    assert rank_of(report, range_in="0..1", range_out="0..1") == 0


def test_a_network_of_weights_is_tried_as_such(tmp_path):
    net = Net()
    names = [net.input(name, 1) for name in ("over", "under")]
    weight = net.op("Sigmoid", net.scaled(net.op("Sub", *names[::-1]), 4.0))
    other = net.op("Sub", np.ones(1, np.float32), weight)
    path = net.write(tmp_path / "net.onnx", net.op("Concat", weight, other, axis=1), 2)
    report = tried(path, task="mef", range_in="0..1")
    best = report.candidates[0].conventions[0]
    assert best.output_kind == "weights"
    assert any("two channels" in text for text in report.refused)


def test_a_network_that_does_not_run_is_one_error(tmp_path):
    net = Net()
    pair = net.input("both", 2)
    other = net.op("Add", pair, np.zeros((1, 2, 7, 5), np.float32))
    path = net.write(tmp_path / "net.onnx", other, 2)
    with pytest.raises(InputError) as caught:
        tried(path)
    assert str(path) in str(caught.value)


def test_values_that_are_not_finite_are_left_out(tmp_path):
    net = Net()
    names = [net.input(name, 1) for name in ("vis", "ir")]
    root = net.op("Sqrt", net.op("Mean", *names))  # of negative numbers with -1..1
    path = net.write(tmp_path / "net.onnx", net.op("Mul", root, root), 1)
    report = tried(path, range_out="0..1")
    assert {c.range_in for candidate in report.candidates for c in candidate.conventions} == {
        "0..1",
        "0..255",
    }
    assert report.refused == (
        f"{path}: its output 'out' has values that are not finite with range_in -1..1; expected numbers",
    )


def test_a_score_is_best_for_what_keeps_both_sources():
    pair = shipped_pairs("mff")[0]
    x, y = (frame[:96, :128] for frame in read_frame_pair(pair))
    mean = ((x.astype(np.uint16) + y) // 2).astype(np.uint8)
    good = score_picture("mff", x, y, mean, x)
    for wrong in (255 - mean, mean // 4, mean[..., ::-1], np.zeros_like(mean)):
        assert score_picture("mff", x, y, wrong, x).value < good.value - 0.1
    assert score_picture("mff", x, y, mean, 255 - x).identity > 20
    assert good.identity == 0


def test_the_sheet_has_the_sources_and_the_best_pictures(tmp_path):
    frame = np.full((192, 256, 3), 128, np.uint8)
    one = tried(maximum_network(tmp_path / "net.onnx"), **RIGHT)
    pairs = (SampledPair("a", frame, frame), SampledPair("b", frame, frame))
    many = TryReport(one.given, one.candidates * (MAX_SHOWN + 5), pairs, (), None, ())
    assert draw_sheet(many).shape == (4 * (192 + 3 * 22 + 2 * 6), 3 * (2 * 262 + 6), 3)
    assert draw_sheet(one).shape[0] == 192 + 3 * 22 + 2 * 6
