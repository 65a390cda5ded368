"""Bulk fusion on two simulated nodes: a driver, a node and a process are killed in the middle."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulk_pieces import BUNDLE, OPTIONS, FragileWorker, bulk_options, images_in, plain_results, write_archive
from ray_cluster import cluster, connected  # noqa: F401  # fixtures
from tcmoa_runtime.bulk import passes
from tcmoa_runtime.bulk.run import fuse_in_bulk
from tcmoa_runtime.images import encode_image, read_image

pytestmark = pytest.mark.slow

NUM_PAIRS = 32


def spoil(folder):
    """Add pairs that cannot be fused, and return the rows of the table of errors without the remedy."""
    x, y = folder / "x", folder / "y"
    good = (x / "pair000.png").read_bytes()
    small = encode_image(read_image(x / "pair000.png")[:24], "PNG")
    (x / "bad-bytes.png").write_bytes(good[:100])
    (y / "bad-bytes.png").write_bytes(good)
    (x / "bad-size.png").write_bytes(good)
    (y / "bad-size.png").write_bytes(small)
    (x / "bad-empty.png").write_bytes(good)
    (y / "bad-empty.png").write_bytes(b"")
    (y / "alone.png").write_bytes(good)
    formats = "PNG, JPEG, TIFF, BMP or WebP"
    sizes = f"x is 64x48 and y ({y / 'bad-size.png'}) 64x24; expected two registered images of one size"
    alone = "no partner; expected the same names in both folders, or NAME_x.EXT and NAME_y.EXT"
    problems = {
        "alone": ("", y / "alone.png", alone),
        "bad-bytes": (x / "bad-bytes.png", x / "bad-bytes.png", f"not a readable image; expected {formats}"),
        "bad-empty": (x / "bad-empty.png", y / "bad-empty.png", "an empty file; expected an image"),
        "bad-size": (x / "bad-size.png", x / "bad-size.png", sizes),
    }
    return [
        [name, str(first), str(y / f"{name}.png"), str(subject), problem]
        for name, (first, subject, problem) in problems.items()
    ]


def error_rows(out):
    with (out / "_errors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["pair", "x", "y", "subject", "problem", "remedy"]
    return rows[1:]


def kill_driver_after(count, out, command, environment):
    """Run a command until it has written some images, and kill it; return their names."""
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 240
    while len(images_in(out)) < count and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert driver.poll() is None
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    return set(images_in(out))


def test_a_killed_driver_node_and_process_lose_nothing(connected, tmp_path, monkeypatch):  # noqa: F811
    names = write_archive(tmp_path, NUM_PAIRS)
    out = tmp_path / "out"
    sources = tmp_path / "x", tmp_path / "y"
    command = [
        *(sys.executable, "-c", "from tcmoa_runtime.cli import main; main()", "bulk", BUNDLE),
        *(*map(str, sources), "-o", str(out)),
        *("--address", connected.address, "--backend", OPTIONS["backend"]),
    ]
    there = kill_driver_after(8, out, command, dict(os.environ))
    assert 8 <= len(there) < NUM_PAIRS

    # The second run goes on where the first one was, and loses a node and the process that decodes one picture.
    expected_rows = spoil(tmp_path)
    poison = [str(tmp_path / source / "poison.png") for source in "xy"]
    for path in poison:
        Path(path).write_bytes((tmp_path / "x" / "pair000.png").read_bytes())
    killed = []

    def kill(done, total):
        if not killed and done > total // 4:
            killed.append(connected.nodes[1].address)
            connected.nodes[1].kill()

    with monkeypatch.context() as patched:
        patched.setattr(passes, "BulkWorker", FragileWorker)
        patched.setattr(passes, "MAX_LOSSES", 2)  # each takes the start of a process
        options = bulk_options(address=connected.address)
        summary = fuse_in_bulk(BUNDLE, *sources, out, options, on_progress=kill)
    assert killed
    assert len(summary.failures) == 5
    assert summary.num_fused + summary.num_skipped == NUM_PAIRS
    assert summary.num_skipped >= len(there)
    expected = plain_results(tmp_path, names)
    assert images_in(out) == expected
    *rows, last = error_rows(out)
    assert [row[:5] for row in rows] == expected_rows
    assert rows[0][5] == "Add or rename its partner."
    assert last == [
        "poison",
        *poison,
        poison[0],
        "the process that fused it ended 2 times; expected it to stay alive",
        "Look at the file, and at the memory of the nodes.",
    ]
    others = {path.name for path in out.iterdir() if path.suffix != ".png"}
    assert others == {"_errors.csv", ".tcmoa-bulk.json"}

    # The third one does the rest only; it is led over Ray Client, and has the usual actor.
    for name in names[3:5]:
        (out / f"{name}.png").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    summary = fuse_in_bulk(BUNDLE, *sources, out, bulk_options(address=connected.client_address))
    assert (summary.num_fused, summary.num_skipped, len(summary.failures)) == (3, NUM_PAIRS - 2, 4)
    assert images_in(out) == expected | plain_results(tmp_path, ["poison"])
    assert all((out / name).stat().st_mtime_ns == time_ns for name, time_ns in before.items())
    assert [row[:5] for row in error_rows(out)] == expected_rows
