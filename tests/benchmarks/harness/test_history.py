"""Earlier runs."""

import json

import pytest

from harness.history import FORMAT, changes, file_name, latest
from harness.machine import slug


def run(utc, p50=100.0, **others):
    entry = {"status": "measured", "p50_ms": p50}
    cases = {"tiny": {"contenders": {"onnxruntime": entry, "eager": {"status": "not run"}}}}
    machine = {"cpu": "AMD EPYC(TM) 9B14"}
    base = {"format": FORMAT, "utc": utc, "threads": 2, "quick": False, "machine": machine, "cases": cases}
    return {**base, **others}


def write(folder, *runs):
    for each in runs:
        (folder / file_name(each)).write_text(json.dumps(each))


def test_a_file_is_named_by_time_and_processor():
    assert file_name(run("2026-01-02T03:04:05Z")) == "20260102T030405Z-amd-epyc-9b14.json"
    assert slug("Intel(R) Xeon(R) Processor @ 2.1GHz") == "intel-xeon-processor-2-1ghz"
    assert slug("?") == "unknown"


def test_the_latest_comparable_run_is_found(tmp_path):
    new = run("2026-01-05T00:00:00Z", p50=90.0)
    assert latest(tmp_path, new) is None
    write(
        tmp_path,
        run("2026-01-01T00:00:00Z", p50=200.0),
        run("2026-01-02T00:00:00Z"),
        run("2026-01-03T00:00:00Z", threads=1),
        run("2026-01-03T01:00:00Z", quick=True),
        run("2026-01-03T02:00:00Z", format=FORMAT + 1),
        run("2026-01-03T03:00:00Z", machine={"cpu": "another"}),
        run("2026-01-06T00:00:00Z"),  # later
        new,
    )
    (tmp_path / "20260104T000000Z-amd-epyc-9b14.json").write_text("{ damaged")
    (tmp_path / "20260104T000001Z-amd-epyc-9b14.json").write_text("[]")
    name, found = latest(tmp_path, new)
    assert name == "20260102T000000Z-amd-epyc-9b14.json"
    assert changes(new, found) == {"tiny": {"onnxruntime": pytest.approx(-0.1)}}


def test_a_case_missing_in_the_earlier_run_has_no_change():
    before = run("2026-01-01T00:00:00Z", cases={})
    assert changes(run("2026-01-05T00:00:00Z"), before) == {}
