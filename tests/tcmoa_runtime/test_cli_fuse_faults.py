"""`tcmoa fuse` with wrong input: one line, the right exit code, and no file written or changed."""

import sys

import cv2
import numpy as np
import pytest

from tcmoa_runtime.images import write_image


@pytest.fixture(scope="module")
def paths(tmp_path_factory, pair, four_pairs, vif):
    """Paths by name, for the commands below, each of which leaves them as they are."""
    here = tmp_path_factory.mktemp("faults")
    for folder in ("sources", "x", "y", "nothing", "hard"):
        (here / folder).mkdir()
    for source, frame, batch in zip("xy", pair, four_pairs, strict=True):
        write_image(here / "sources" / f"{source}.png", frame)
        for name, image in zip("abc", batch[:3], strict=True):
            write_image(here / source / f"{name}.png", image)
    y = here / "sources" / "y.png"
    write_image(here / "small.png", np.zeros((50, 60, 3), np.uint8))
    write_image(here / "pixel.png", np.zeros((1, 1, 3), np.uint8))
    write_image(here / "mask.png", np.zeros((99, 130), np.uint8))
    cv2.imwrite(str(here / "deep.png"), np.zeros((100, 130), np.uint16))
    (here / "empty.png").write_bytes(b"")
    (here / "text.png").write_text("not an image")
    (here / "link.png").symlink_to(y)
    (here / "hard.png").hardlink_to(y)
    (here / "folder-link").symlink_to(here / "x")
    (here / "hard" / "b.png").hardlink_to(here / "x" / "b.png")
    (here / "pairs.csv").write_text("x/a.png,y/a.png\n")
    names = ("small.png", "pixel.png", "mask.png", "deep.png", "empty.png", "text.png", "nothing")
    return {
        **{name.split(".")[0]: here / name for name in names},
        "bundle": vif,
        "x": here / "sources" / "x.png",
        "y": y,
        "X": here / "x",
        "Y": here / "y",
        "out": here / "out.png",
        "OUT": here / "out",
        "here": here,
        "long": here / ("x" * 300 + ".png"),
    }


FAULTS = {
    "missing bundle": ("{here}/none {x} {y} -o {out}", "no such bundle"),
    "not a bundle": ("{X} {x} {y} -o {out}", "not a bundle; expected a bundle.json in it"),
    "an image as bundle": ("{x} {x} {y} -o {out}", "a file; expected the folder of a bundle"),
    "missing image": ("{bundle} {here}/none.png {y} -o {out}", "none.png: no such image file"),
    "missing second image": ("{bundle} {x} {here}/none.png -o {out}", "none.png: no such image file"),
    "unreadable image": ("{bundle} {x} {text} -o {out}", "text.png: not a readable image"),
    "empty image": ("{bundle} {empty} {y} -o {out}", "empty.png: an empty file"),
    "two sizes": ("{bundle} {x} {small} -o {out}", "x.png: x is 130x100 and y ("),
    "two sizes with --fit resize": (
        "{bundle} {x} {small} -o {out} --fit resize",
        "two registered images of one size",
    ),
    "another size": (
        "{bundle} {small} {small} -o {out} --fit exact",
        "x: 60x50; expected 130x100, the size of this bundle. Set --fit to tile, pad or resize, or export a bundle for",
    ),
    "one pixel": ("{bundle} {pixel} {pixel} -o {out} --fit exact", "x: 1x1; expected 130x100"),
    "scale NaN": (
        "{bundle} {x} {y} -o {out} --prompt-scale nan",
        "--prompt-scale: nan; expected a finite number",
    ),
    "scale infinite": ("{bundle} {x} {y} -o {out} --prompt-scale inf", "expected a finite number"),
    "scale beyond float32": (
        "{bundle} {x} {y} -o {out} --prompt-scale 1e300",
        "--prompt-scale: 1e+300; expected -16 to 16",
    ),
    "scale as text": (
        "{bundle} {x} {y} -o {out} --prompt-scale much",
        "--prompt-scale: 'much'; expected a number",
    ),
    "scale as mask": ("{bundle} {x} {y} -o {out} --prompt-scale {mask}", "expected a number"),
    "shift beyond the limit": (
        "{bundle} {x} {y} -o {out} --prompt-shift=-16.5",
        "--prompt-shift: -16.5; expected -16 to 16",
    ),
    "shift NaN": ("{bundle} {x} {y} -o {out} --prompt-shift nan", "--prompt-shift: nan"),
    "shift infinite": ("{bundle} {x} {y} -o {out} --prompt-shift=-inf", "expected a finite number"),
    "shift as text": (
        "{bundle} {x} {y} -o {out} --prompt-shift left",
        "--prompt-shift: 'left'; expected a number, or an image, e.g. mask.png",
    ),
    "mask missing": ("{bundle} {x} {y} -o {out} --prompt-shift none.png", "none.png: no such image file"),
    "mask unreadable": ("{bundle} {x} {y} -o {out} --prompt-shift {text}", "text.png: not a readable image"),
    "mask of another size": (
        "{bundle} {x} {y} -o {out} --prompt-shift {mask}",
        "mask.png: 130x99; expected 130x100 (the frame) or 17x13 (one pixel per token)",
    ),
    "mask of 16 bits": ("{bundle} {x} {y} -o {out} --prompt-shift {deep}", "expected an 8-bit mask"),
    "unknown backend": ("{bundle} {x} {y} -o {out} --backend cuda", "'cuda' is not one of 'auto'"),
    "unknown option": ("{bundle} {x} {y} -o {out} --fast", "--fast"),
    "missing out": ("{bundle} {x} {y}", "'--out' / '-o'"),
    "missing source": (
        "{bundle} {x} -o {out}",
        "x.png: no second source; expected another image. Name y after it.",
    ),
    "missing sources": (
        "{bundle} -o {out}",
        "error: no sources; expected two images, or pairs of images. Name x and y, or set --pairs.",
    ),
    "patterns with images": (
        "{bundle} {x} {y} -o {out} --x-pattern a{{id}} --y-pattern b{{id}}",
        "--x-pattern: given with two images; expected folders",
    ),
    "pairs and folders": ("{bundle} {X} {Y} --pairs {X} -o {OUT}", "source pairs: 3 of three options given"),
    "extra argument": ("{bundle} {x} {y} {y} -o {out}", "See `tcmoa fuse --help`"),
    "threads zero": ("{bundle} {x} {y} -o {out} --threads 0", "--threads: 0; expected 1 or more"),
    "threads as text": ("{bundle} {x} {y} -o {out} --threads all", "--threads"),
    "stretch of one number": (
        "{bundle} {x} {y} -o {out} --stretch 5",
        "--stretch: '5'; expected two percentiles, e.g. 1,99",
    ),
    "stretch of text": ("{bundle} {x} {y} -o {out} --stretch a,b", "--stretch: 'a'; expected a number"),
    "stretch in descending order": (
        "{bundle} {x} {y} -o {out} --stretch 99,1",
        "--stretch: 99,1; expected two percentiles",
    ),
    "out in a missing folder": (
        "{bundle} {x} {y} -o {here}/no/out.png",
        "no does not exist. Create it first.",
    ),
    "out of unknown format": ("{bundle} {x} {y} -o {here}/out.gif", "image format '.gif'; expected"),
    "out without format": ("{bundle} {x} {y} -o {here}/out", "image format ''; expected"),
    "out is a folder": (
        "{bundle} {x} {y} -o {nothing}",
        "a folder; expected an image file. Name the image, e.g. ",
    ),
    "out is x": (
        "{bundle} {x} {y} -o {x}",
        "x.png: is a source; expected another path for the result. Choose another --out.",
    ),
    "out is y through a symbolic link": ("{bundle} {x} {y} -o {here}/link.png", "link.png: is a source"),
    "out is y through a hard link": ("{bundle} {x} {y} -o {here}/hard.png", "hard.png: is a source"),
    "out folder is x through a symbolic link": (
        "{bundle} {X} {Y} -o {here}/folder-link",
        "folder-link: is a source",
    ),
    "out folder holds the sources of a table": ("{bundle} {here}/pairs.csv -o {X}", "x: is a source"),
    "out folder holds a hard link to a source": (
        "{bundle} {X} {Y} -o {here}/hard",
        "hard/b.png: is a source",
    ),
    "out is y": ("{bundle} {x} {y} -o {here}/sources/../sources/y.png", "y.png: is a source"),
    "out folder is x": ("{bundle} {X} {Y} -o {X}", "x: is a source"),
    "out folder is y": ("{bundle} {X} {Y} -o {here}/./y", "y: is a source"),
    "out folder is a file": ("{bundle} {X} {Y} -o {small}", "small.png: a file; expected a folder"),
    "out folder below a file": ("{bundle} {X} {Y} -o {small}/out", "small.png/out: cannot be created"),
    "a folder and a file": ("{bundle} {X} {y} -o {OUT}", "expected two images or two folders"),
    "a file and a folder": ("{bundle} {x} {Y} -o {out}", "expected two images or two folders"),
    "folders without pairs": ("{bundle} {X} {nothing} -o {OUT}", "no pair of images"),
    "one folder without _x and _y": ("{bundle} {X} {X} -o {OUT}", "expected NAME_x.EXT and NAME_y.EXT"),
    "folders and unknown format": (
        "{bundle} {X} {Y} -o {OUT} --format gif",
        "--format: 'gif'; expected one of png",
    ),
    "folders and prompt NaN": ("{bundle} {X} {Y} -o {OUT} --prompt-shift nan", "--prompt-shift: nan"),
    "folders and missing bundle": ("{here}/none {X} {Y} -o {OUT}/deep/er", "no such bundle"),
    "a path too long": ("{bundle} {long} {y} -o {out}", "File name too long"),
}


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_input_is_reported_in_one_line_and_changes_no_file(fault, json, tcmoa, paths, tree):
    command, words = FAULTS[fault]
    # ONNX Runtime loads a small graph in half of the time of OpenVINO.
    backend = [] if "--backend" in command else ["--backend", "onnxruntime"]
    before = tree(paths["here"])
    outcome = tcmoa("fuse", *(part.format(**paths) for part in command.split()), *json, *backend)
    outcome.assert_error(2, words)
    assert tree(paths["here"]) == before


def keep_half(data):
    return data[: len(data) // 2]


def flip_byte(data):
    return data[:5000] + bytes([data[5000] ^ 255]) + data[5001:]


def test_native_libraries_print_no_lines(tcmoa_process, paths, pair, tmp_path):
    """libpng and OpenCV write to file descriptor 2, not to `sys.stderr`."""
    x, y = tmp_path / "x", tmp_path / "y"
    for folder in (x, y):
        folder.mkdir()
    for name, damage in {
        "a.png": keep_half,
        "b.png": flip_byte,
        "c.webp": keep_half,
        "d.tif": keep_half,
    }.items():
        write_image(x / name, pair[0])
        write_image(y / name, pair[1])
        (y / name).write_bytes(damage((y / name).read_bytes()))
    command = ("fuse", paths["bundle"], x / "b.png", y / "b.png", "-o", tmp_path / "out.png")
    tcmoa_process(*command).assert_error(2, "b.png: not a readable image")
    outcome = tcmoa_process("fuse", paths["bundle"], x, y, "-o", tmp_path / "out", "--json")
    assert outcome.code == 2
    assert [failure["name"] for failure in outcome.json["failed"]] == list("abcd")
    assert all("not a readable image" in failure["error"] for failure in outcome.json["failed"])
    assert all(line.startswith("tcmoa: error: ") for line in outcome.err.splitlines())


def damage_graph(folder):
    graph = folder / "fusion.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")


def damage_manifest(folder):
    (folder / "bundle.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_graph, damage_manifest])
def test_nothing_is_written_with_a_damaged_bundle(damage, tcmoa, broken, sources, tmp_path, tree):
    damage(broken)
    before = tree(tmp_path)
    tcmoa("fuse", broken, *sources, "-o", tmp_path / "out.png").assert_error(2, broken)
    assert tree(tmp_path) == before


def test_a_missing_package_exits_3_and_is_named(tcmoa, paths, tree, monkeypatch, no_openvino):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "tcmoa_runtime.backends.onnxruntime", raising=False)
    before = tree(paths["here"])
    outcome = tcmoa("fuse", paths["bundle"], paths["x"], paths["y"], "-o", paths["out"])
    outcome.assert_error(3, "pip install onnxruntime")
    assert tree(paths["here"]) == before


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_partial_file(tcmoa, paths, tree, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    before = tree(paths["here"])
    outcome = tcmoa("fuse", paths["bundle"], paths["x"], paths["y"], "-o", paths["out"])
    outcome.assert_error(2, "out.png: cannot be written: No space left on device")
    assert tree(paths["here"]) == before
