"""The plots of a run."""

import pytest

from harness import plots

POINTS = [
    {"case": "a", "pixels": 1000, "p50_ms": 1.0, "ns_per_pixel": 1000.0},
    {"case": "b", "pixels": 4000, "p50_ms": 5.0, "ns_per_pixel": 1250.0},
]


def run(*, empty=False):
    entries = {"eager": {"share": 0.5, "limit": "fp32"}, "openvino": {"share": None, "limit": "fp32"}}
    return {
        "machine": {"cpu": "a processor"},
        "threads": 2,
        "scaling": {} if empty else {"onnxruntime": POINTS},
        "limits": {"fp32": {"gflops": 100.0}},
        "cases": {} if empty else {"tiny": {"name": "tiny", "baseline": "eager", "contenders": entries}},
    }


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("draw", [plots.latency, plots.limit])
def test_plots_are_drawn_with_and_without_measurements(draw, empty):
    assert draw(run(empty=empty)).startswith(b"\x89PNG")
