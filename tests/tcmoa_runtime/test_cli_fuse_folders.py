"""`tcmoa fuse` of many pairs: what is missing only, failures by their kind, and what made the results."""

import json
import os

import numpy as np
import pytest

from tcmoa_runtime.cli import fuse_folder as folder_run
from tcmoa_runtime.images import read_image, write_image

RECORD = ".tcmoa-fuse.json"


@pytest.fixture
def fuse(tcmoa, vif, folders, tmp_path):
    """Function that fuses the folders x and y into out."""

    def run_command(*options, bundle=vif, out=tmp_path / "out"):
        return tcmoa(
            "fuse", bundle, *folders, "-o", out, "--backend", "onnxruntime", "--threads", 1, *options
        )

    return run_command


def resize(folders, *names, sizes=((50, 60),)):
    """Replace pairs by images of other sizes (height, width)."""
    for name in names:
        for folder, size in zip(folders, sizes * 2, strict=False):
            write_image(folder / f"{name}.png", np.zeros((*size, 3), np.uint8))


def test_a_second_run_fuses_only_what_is_missing(fuse, folders, tmp_path):
    out = tmp_path / "out"
    assert fuse().code == 0
    (out / "b.png").unlink()
    before = (out / "a.png").stat().st_mtime_ns
    outcome = fuse()
    assert outcome.out.startswith(f"{out}/b.png, 2 more were there (onnxruntime (CPU), ")
    assert (out / "a.png").stat().st_mtime_ns == before
    outcome = fuse()
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"3 images are in {out} already; nothing to fuse (--overwrite fuses them again)\n"
    report = fuse("--json").json
    assert (report["images"], report["skipped"], report["outputs"]) == (0, 3, [])
    assert fuse("--overwrite", "--json").json["skipped"] == 0


def test_a_source_that_has_changed_is_fused_again(fuse, folders, tmp_path):
    assert fuse().code == 0
    old = read_image(tmp_path / "out" / "a.png")
    write_image(folders[1] / "a.png", read_image(folders[1] / "b.png"))
    report = fuse("--json").json
    assert (report["outputs"], report["skipped"]) == ([str(tmp_path / "out" / "a.png")], 2)
    assert (read_image(tmp_path / "out" / "a.png") != old).any()


def test_other_pairs_of_equal_names_are_not_taken_for_results(fuse, tcmoa, vif, folders, tmp_path):
    assert fuse().code == 0
    others = [tmp_path / "other x", tmp_path / "other y"]
    for other, folder in zip(others, reversed(folders), strict=True):
        other.mkdir()
        write_image(other / "a.png", read_image(folder / "a.png"))
    outcome = tcmoa("fuse", vif, *others, "-o", tmp_path / "out", "--json", "--backend", "onnxruntime")
    assert (outcome.json["images"], outcome.json["skipped"]) == (1, 0)


@pytest.mark.parametrize(
    ("options", "bundle", "difference"),
    [
        (("--prompt-scale", "1.5"), "vif", "prompt_scale 1 (now 1.5)"),
        (("--prompt-shift", "0.25"), "vif", "prompt_shift 0 (now 0.25)"),
        (("--prompt-shift", "mask.png"), "vif", "prompt_shift 0 (now a mask)"),
        (
            ("--fit", "resize", "--stretch", "2,98"),
            "vif",
            "fit tile (now resize) and stretch 1,99 (now 2,98)",
        ),
        ((), "plain", "another bundle"),
    ],
)
def test_results_of_another_bundle_or_prompt_are_not_mixed(
    options, bundle, difference, fuse, exported, tmp_path, tree, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "mask.png", np.full((100, 130), 99, np.uint8))
    assert fuse().code == 0
    before = tree(tmp_path)
    outcome = fuse(*options, bundle=exported(bundle))
    outcome.assert_error(2)
    assert outcome.err == (
        f"tcmoa: error: {tmp_path / 'out'}: holds 3 images made with {difference}; expected images of one bundle and "
        "prompt. Choose another --out, or make them again with --overwrite.\n"
    )
    assert tree(tmp_path) == before
    assert fuse(*options, "--overwrite", bundle=exported(bundle)).code == 0


def test_images_that_no_run_wrote_are_not_replaced(fuse, tmp_path, tree):
    (tmp_path / "out").mkdir()
    for name in "ab":
        (tmp_path / "out" / f"{name}.png").write_bytes(b"mine")
    before = tree(tmp_path)
    fuse().assert_error(
        2,
        f"{tmp_path / 'out'}: holds a.png, b.png, which no run of this command wrote; expected a folder without images "
        "of these names. Choose another --out, or replace them with --overwrite.",
    )
    assert tree(tmp_path) == before
    assert fuse("--overwrite").code == 0


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"[]", b'{"format": 1}', b'{"format": 2}', b"\xff"]
)
def test_a_damaged_record_is_refused(content, fuse, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_bytes(content)
    fuse().assert_error(
        2,
        f"{tmp_path / 'out' / RECORD}: damaged; expected the record of a run of this command. "
        "Fuse the whole folder again with --overwrite.",
    )


def test_a_record_that_is_a_pipe_is_refused(fuse, tmp_path):
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / RECORD)
    fuse().assert_error(2, f"{RECORD}: cannot be read: a named pipe; expected a regular file")


def test_an_interrupted_run_continues(fuse, tmp_path, monkeypatch):
    write = folder_run.write_image
    written = []

    def interrupt(path, image):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, image)

    monkeypatch.setattr(folder_run, "write_image", interrupt)
    outcome = fuse()
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.splitlines()[0] == "tcmoa: 1 more pairs are fused; run the same command to continue"
    monkeypatch.setattr(folder_run, "write_image", write)
    report = fuse("--json").json
    assert (report["images"], report["skipped"]) == (2, 1)


def test_a_full_disk_ends_the_run_at_once(fuse, tmp_path, monkeypatch):
    from pathlib import Path

    write = Path.write_bytes

    def fail(path, data):
        if ".b.png" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    outcome = fuse()
    outcome.assert_error(
        2,
        f"{tmp_path / 'out' / 'b.png'}: cannot be written: No space left on device. 1 of 3 pairs are fused; make "
        "space, and run the same command to continue.",
    )
    monkeypatch.undo()
    report = fuse("--json").json
    assert (report["images"], report["skipped"]) == (2, 1)


def test_failures_of_one_kind_are_one_line_with_sizes_and_the_next_command(fuse, vif, folders, tmp_path):
    resize(folders, "a", "b")
    outcome = fuse("--fit", "exact")
    x, y, out = *folders, tmp_path / "out"
    again = f"tcmoa fuse {vif} {x} {y} -o {out} --backend onnxruntime --threads 1 --fit tile"
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "tcmoa: error: 2 pairs, e.g. a, b: another size; expected 130x100, the size of this bundle. Sizes: 60x50 (2). "
        f"Run `{again}`",
        f"tcmoa: error: 2 of 3 pairs were not fused, see above; the other one is in {out}. "
        "A second run fuses only what is missing.",
    ]
    outcome = fuse("--fit", "tile", "--json")
    assert (outcome.code, outcome.json["images"], outcome.json["skipped"]) == (0, 2, 1)


def test_a_run_without_any_result_says_so_and_leaves_no_folder(fuse, folders, tmp_path, vif):
    resize(folders, "a", "b", sizes=((50, 60), (40, 60)))
    resize(folders, "c", sizes=((70, 60), (40, 60)))
    outcome = fuse("--json")
    assert outcome.code == 2
    align = f"tcmoa calibrate align {vif} --x {folders[0]} --y {folders[1]} -o vif-aligned"
    assert outcome.err.splitlines() == [
        "tcmoa: error: 3 pairs, e.g. a, b, c: x and y differ in size; expected two registered images of one size. "
        f"Sizes: 60x50 and 60x40 (2), 60x70 and 60x40 (1). Run `{align}`",
        "tcmoa: error: 3 of 3 pairs were not fused, see above; none was written",
    ]
    assert outcome.json["failures"] == [
        {
            "problem": "x and y differ in size; expected two registered images of one size",
            "count": 3,
            "names": ["a", "b", "c"],
            "sizes": {"60x50 and 60x40": 2, "60x70 and 60x40": 1},
            "command": align,
        }
    ]
    assert not (tmp_path / "out").exists()


def test_each_kind_of_failure_is_one_line(fuse, folders):
    for name in "ab":
        (folders[0] / f"{name}.png").write_bytes(b"")
    (folders[1] / "c.png").write_text("text")
    lines = fuse().err.splitlines()
    assert lines[0] == "tcmoa: error: 2 pairs, e.g. a, b: an empty file; expected an image"
    assert lines[1].startswith(f"tcmoa: error: {folders[1]}/c.png: not a readable image")
    assert lines[2] == "tcmoa: error: 3 of 3 pairs were not fused, see above; none was written"


@pytest.mark.parametrize("form", ["table", "patterns", "one folder"])
def test_pairs_come_from_a_table_patterns_or_one_folder(form, tcmoa, vif, pair, tmp_path, fuser):
    both = tmp_path / "both"
    both.mkdir()
    for source, frame in zip("xy", pair, strict=True):
        write_image(both / (f"n_{source}.png" if form == "one folder" else f"{source}-n.png"), frame)
    (tmp_path / "pairs.csv").write_text("x,y,name\nboth/x-n.png,both/y-n.png,n\n")
    named = {
        "table": ["--pairs", tmp_path / "pairs.csv"],
        "patterns": [both, "--x-pattern", "x-{id}.png", "--y-pattern", "y-{id}.png"],
        "one folder": [both],
    }[form]
    outcome = tcmoa("fuse", vif, *named, "-o", tmp_path / "out", "--backend", "onnxruntime")
    assert outcome.code == 0, outcome.err
    assert np.abs(read_image(tmp_path / "out" / "n.png").astype(int) - fuser(*pair)).max() <= 1
    assert json.loads((tmp_path / "out" / RECORD).read_text())["images"].keys() == {"n.png"}


def test_the_message_of_folders_without_pairs_has_a_command_that_works(tcmoa, vif, pair, tmp_path):
    for folder, prefix in (("x", "VIS"), ("y", "IR")):
        (tmp_path / folder).mkdir()
        for number in (1, 2):
            write_image(tmp_path / folder / f"{prefix}{number}.png", pair[0])
    command = (
        "fuse",
        vif,
        tmp_path / "x",
        tmp_path / "y",
        "-o",
        tmp_path / "out",
        "--backend",
        "onnxruntime",
    )
    tcmoa(*command).assert_error(
        2,
        "e.g. --x-pattern 'VIS{id}.png' --y-pattern 'IR{id}.png', or list them in a CSV file with the columns x,y",
    )
    outcome = tcmoa(*command, "--x-pattern", "VIS{id}.png", "--y-pattern", "IR{id}.png", "--json")
    assert [name[-5:] for name in outcome.json["outputs"]] == ["1.png", "2.png"]
