"""Contenders in turn, with a fake clock and fake load."""

import pytest

from harness.measure import is_inconclusive, scaling
from harness.rounds import MAX_FRAMES, frames_per_sample
from harness.statistic import ratio


def test_a_sample_is_much_longer_than_a_tick():
    assert frames_per_sample(1000.0) == 1
    assert frames_per_sample(100.0) == 3
    assert frames_per_sample(10.0, seconds=0.05) == 5
    assert frames_per_sample(0.0) == MAX_FRAMES


def test_contenders_run_in_turn_and_each_starts_one_round(fake):
    measured, machine = fake.rounds({"a": 400.0, "b": 500.0, "c": 600.0}, rounds=3)
    # In round one each runs a frame more, which is not counted.
    assert "".join(machine.order) == "aabbcc" + "bca" + "cab"
    assert {name: s.counted for name, s in measured.series.items()} == dict.fromkeys("abc", 3)


def test_a_disturbed_sample_is_repeated(fake):
    measured, _ = fake.rounds({"a": 400.0}, rounds=2, noise=lambda _, sample: 1.0 if sample == 1 else 0.0)
    assert [[s.counts for s in samples] for samples in measured.series["a"].rounds] == [[False, True], [True]]
    assert measured.series["a"].rounds[0][0].foreign == pytest.approx(1.0)


def test_tries_are_bounded(fake):
    measured, _ = fake.rounds(
        {"a": 400.0, "b": 400.0}, noise=lambda name, _: 1.0 if name == "a" else 0.0, tries=2
    )
    noisy, quiet = measured.series["a"], measured.series["b"]
    assert [len(samples) for samples in noisy.rounds] == [2, 2, 2, 1]  # by then it is too noisy for good
    assert (noisy.counted, noisy.tried) == (0, 7)
    assert (quiet.counted, quiet.tried) == (4, 4)
    assert noisy.is_noisy
    assert ratio(quiet, noisy) is None


def test_a_contender_whose_process_ends_is_dropped(fake):
    measured, _ = fake.rounds({"a": lambda sample: 400.0 if sample < 3 else None, "b": 400.0})
    assert measured.failed == {"a": "a: its process ended (exit status 1)"}
    assert list(measured.series) == ["b"]
    assert measured.series["b"].counted == 4


def test_without_a_baseline_a_case_is_inconclusive(fake):
    speeds = {fake.eager: 400.0, "onnxruntime": 200.0}
    quiet = fake.case(speeds)
    assert not is_inconclusive(quiet)
    assert quiet["contenders"]["onnxruntime"]["ratio"]["median"] == pytest.approx(2.0)
    noisy = fake.case(speeds, noise=lambda name, _: 1.0 if name == fake.eager else 0.0)
    assert is_inconclusive(noisy)
    assert noisy["contenders"][fake.eager]["status"] == "too noisy"
    assert noisy["contenders"]["onnxruntime"]["ratio"] is None
    assert noisy["contenders"]["onnxruntime"]["p50_ms"] == pytest.approx(200.0)
    failed = fake.case({fake.eager: None, "onnxruntime": 200.0})
    assert is_inconclusive(failed)


def test_scaling_is_relative_to_the_minimum_per_pixel():
    def case(name, pixels, p50):
        entry = {"status": "measured", "p50_ms": p50, "peak_mb": 10.0}
        return {"name": name, "pixels": pixels, "scale": True, "contenders": {"onnxruntime": entry}}

    points = scaling({"b": case("b", 2000, 3.0), "a": case("a", 1000, 1.0)})["onnxruntime"]
    assert [p["case"] for p in points] == ["a", "b"]
    assert [p["ns_per_pixel_relative"] for p in points] == [1.0, 1.5]
    assert [p["bytes_per_pixel_relative"] for p in points] == [2.0, 1.0]
    assert scaling({"a": case("a", 1000, 1.0)}) == {}
