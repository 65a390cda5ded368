"""What `tcmoa bulk` prints: wrong inputs in one line each, progress, and summaries."""

import json
import re
import sys

import pyarrow
import pytest
from pyarrow import parquet

from bulk_pieces import BUNDLE, COUNT, error_rows, small_bundle, sources_of
from tcmoa_runtime.cli import run
from tcmoa_runtime.install import install_hint


class TestWrongInputs:
    @pytest.fixture
    def line(self, capsys):
        def run_it(*arguments):
            code = run(["bulk", *map(str, arguments)])
            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            return code, captured.err.removeprefix("tcmoa: ").strip()

        return run_it

    def test_each_is_one_line_before_ray_is_started(self, archive, tmp_path, line, monkeypatch):
        folder, _names, _ = archive
        x, y, out = folder / "x", folder / "y", tmp_path / "out"
        monkeypatch.setattr(
            "tcmoa_runtime.bulk.run.ray_session", lambda *_, **__: pytest.fail("Ray was started")
        )
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "in.parquet")
        (tmp_path / "broken.parquet").write_bytes(b"PAR1")
        cases = [
            ((BUNDLE, tmp_path / "no", y), f"error: {tmp_path / 'no'}: no such folder of images"),
            (("no-bundle", x, y), "error: no-bundle: no such bundle; expected a folder or one of"),
            (
                (BUNDLE, x, tmp_path / "empty"),
                f"error: {x} and {tmp_path / 'empty'}: no pair of images; expected",
            ),
            (
                (BUNDLE, tmp_path / "in.parquet"),
                f"error: {tmp_path / 'in.parquet'}: no column 'x', but 'a'; expected the columns of both sources. "
                "Name them with --columns X,Y,NAME.",
            ),
            (
                (BUNDLE, tmp_path / "broken.parquet"),
                f"error: {tmp_path / 'broken.parquet'}: not a Parquet file: ",
            ),
            ((BUNDLE, tmp_path / "no.tar"), f"error: {tmp_path / 'no.tar'}: no such file"),
            (
                (BUNDLE, tmp_path / "in.parquet", y, "--columns", "a,b"),
                f"error: {tmp_path / 'in.parquet'}: has both sources, and a second location is given; expected it "
                "alone. Leave out the second location.",
            ),
            (
                (BUNDLE, "zz://x", "zz://y"),
                "error: zz://x: an unknown scheme 'zz'; expected a path, or a URI of",
            ),
            (
                (BUNDLE, x, "memory://no/y"),
                "error: memory:///no/y: no such folder of images",
            ),
            (
                (BUNDLE, x, y, "--address", "nonsense"),
                "error: --address: 'nonsense'; expected auto, HOST:6379 or ray:",
            ),
            (
                (BUNDLE, x, y, "--columns", "a,b"),
                "error: --columns: given with files of images; expected Parquet",
            ),
            (
                (BUNDLE, x, tmp_path / "file"),
                f"error: {tmp_path / 'file'}: a file; expected a folder of images",
            ),
            (
                (BUNDLE, "http://127.9.9.9:9/x", "http://127.9.9.9:9/y"),
                "error: http://127.9.9.9:9/x: http:// cannot be listed; expected a path or a URI of a file system. "
                "Put the URIs of the pairs into a Parquet file with the columns x and y.",
            ),
            (
                (BUNDLE, x, y, "--update", "--overwrite"),
                "error: --update: given too, but there is no older result when all are removed first; expected one of "
                "the two. Leave out --overwrite, to keep the results that are not outdated.",
            ),
            ((BUNDLE, x, y, "--actors", "0"), "error: --actors: 0; expected 1 or more"),
            (
                (BUNDLE, x, y, "--columns", "x"),
                "error: --columns: x; expected two or three different names, e.g.",
            ),
            (
                (BUNDLE, x, y, "--x-pattern", "a{id}"),
                "error: --x-pattern: given alone; expected a pattern for each",
            ),
            (
                (BUNDLE, tmp_path / "in.parquet", "--x-pattern", "a{id}", "--y-pattern", "b{id}"),
                "error: --x-pattern: given with Parquet or tar files; expected folders of images",
            ),
            (
                (BUNDLE, x, y, "--container", "zip"),
                "error: Invalid value for '--container': 'zip' is not one of",
            ),
        ]
        for arguments, expected in cases:
            code, text = line(*arguments, "-o", out)
            assert text.startswith(expected), text
            assert code == 2
            assert not out.exists()
        code, text = line(BUNDLE, x, y, "-o", tmp_path / "file")
        assert (code, text) == (2, f"error: {tmp_path / 'file'}: a file; expected a folder")
        code, text = line(BUNDLE, x, y, "-o", "/proc/no")
        assert (code, text) == (2, "error: /proc/no: cannot be created: No such file or directory")
        code, text = line(BUNDLE, x, tmp_path / "empty", "-o", out)
        assert text.endswith(
            "or list them in a CSV file with the columns x,y and give it in place of the folders."
        )

    def test_a_missing_package_is_named_with_the_extra(self, archive, tmp_path, line, monkeypatch):
        folder, *_ = archive
        monkeypatch.delitem(sys.modules, "ray.data", raising=False)
        monkeypatch.setitem(sys.modules, "ray", None)
        code, text = line(BUNDLE, folder / "x", folder / "y", "-o", tmp_path / "out")
        assert code == 3
        assert text == f"error: tcmoa bulk: the package ray is not installed. {install_hint('ray')}"

    def test_the_address_of_no_cluster_leaves_no_results(self, archive, tmp_path, line):
        folder, *_ = archive
        code, text = line(
            BUNDLE, folder / "x", folder / "y", "-o", tmp_path / "out", "--address", "127.9.9.9:9"
        )
        assert code == 2
        assert text.startswith(
            "error: 127.9.9.9:9: no Ray cluster answers; expected the address of a head node"
        )
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_progress_has_a_rate_from_the_first_results(archive, tmp_path, capsys, monkeypatch):
    folder, *_ = archive
    monkeypatch.setattr("tcmoa_runtime.cli.progress.LINE_SECONDS", 0.0)
    assert run(["bulk", small_bundle(), f"{folder}/x", f"{folder}/y", "-o", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[:2] == [
        "bulk: starting Ray on this machine",
        "bulk: loading the bundle in 2 processes on 1 node",
    ]
    assert lines[2] == f"bulk: 1 of {COUNT}"
    assert re.fullmatch(rf"bulk: 2 of {COUNT}, [\d.]+ pairs/s, 0:\d\d left", lines[3])
    out = re.escape(str(tmp_path / "out"))
    assert re.fullmatch(rf"{COUNT} pairs in {out} \(.*, [\d.]+ pairs/s with 2 Fusers\)\n", captured.out)
    assert run(["bulk", small_bundle(), f"{folder}/x", f"{folder}/y", "-o", str(tmp_path / "out")]) == 0
    assert "nothing to fuse (--overwrite fuses them again)" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_json_and_exit_codes(archive, tmp_path, capsys):
    folder, names, _ = archive
    for source in "xy":
        (tmp_path / source).mkdir()
        (tmp_path / source / "a.png").write_bytes(sources_of(folder, names[0])[0])
        (tmp_path / source / "b.png").write_bytes(b"")
    command = [
        "bulk",
        small_bundle(),
        str(tmp_path / "x"),
        str(tmp_path / "y"),
        "-o",
        str(tmp_path / "out"),
        "--json",
    ]
    assert run(command) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    errors = tmp_path / "out" / "_errors.csv"
    keys = ["pairs", "fused", "skipped", "outdated", "failed", "errors", "out"]
    assert [summary[key] for key in keys] == [2, 1, 0, 0, 1, str(errors), str(tmp_path / "out")]
    assert set(summary) == {
        *keys,
        *(
            "seconds",
            "start_seconds",
            "pairs_per_second",
            "cpu_ms_per_pair",
            "actors",
            "nodes",
            "backend",
        ),
    }
    assert f"tcmoa: error: {tmp_path / 'x' / 'b.png'}: an empty file; expected an image" in captured.err
    for source in "xy":
        (tmp_path / source / "a.png").write_bytes(b"")
    (tmp_path / "out" / "a.png").unlink()
    assert run(command) == 2  # all are bad
    captured = capsys.readouterr()
    assert json.loads(captured.out)["failed"] == 2
    assert captured.err.splitlines()[-1] == (
        f"tcmoa: error: {errors}: none of 2 pairs was fused; expected pairs that can be fused"
    )
    assert len(error_rows(errors.read_bytes())) == 2
    assert run(command[:-1]) == 2
    assert capsys.readouterr().out == f"0 pairs in {tmp_path / 'out'}, 2 not fused, see {errors}\n"
