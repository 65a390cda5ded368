"""What bulk fusion costs beside a plain loop: CPU time for each pair, and the time to feed pairs without any work.

python benchmarks/bulk_overhead.py --pairs 200
python benchmarks/bulk_overhead.py --rows 1000000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from tcmoa_runtime import Fuser
from tcmoa_runtime.bulk import passes
from tcmoa_runtime.bulk.listing import SourceFolder, list_pair_columns
from tcmoa_runtime.bulk.pair_columns import PairUnits
from tcmoa_runtime.bulk.run import fuse_in_bulk
from tcmoa_runtime.bulk.storage import DiskStorage
from tcmoa_runtime.bulk.units import Unit, UnitResult
from tcmoa_runtime.bulk.worker import BulkWorker, WorkerSettings
from tcmoa_runtime.cluster.bundle_shipping import ship_bundle
from tcmoa_runtime.cluster.session import ray_session
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.images import read_image, write_image
from tcmoa_runtime.options.bulk import BulkOptions
from tcmoa_runtime.pairs import PairPaths

BUNDLE = "nano-vif"
TICKS = os.sysconf("SC_CLK_TCK")


class IdleWorker(BulkWorker):
    """An actor that reports its units as fused without doing anything."""

    def fuse(self, unit: Unit) -> UnitResult:
        """Return the result of a unit."""
        return UnitResult(num_fused=len(unit))


def tree_cpu_seconds() -> float:
    """Return the CPU time of this process and of all below it, those of Ray included, also ended ones."""
    stats = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                stats[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    total, pending = 0.0, [os.getpid()]
    while pending:
        total += sum(stats[pid][1] for pid in pending if pid in stats)
        pending = [pid for pid, (parent, _) in stats.items() if parent in pending]
    return total


def write_pairs(folder: Path, count: int, height: int, width: int) -> list[PairPaths]:
    """Write smooth random pairs as PNG files into x/ and y/ below a folder."""
    rng = np.random.default_rng(0)
    kinds = [
        cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3) for _ in range(8)
    ]
    pairs = []
    for source in "xy":
        (folder / source).mkdir()
    for index in range(count):
        pair = PairPaths(f"{index:05}", folder / "x" / f"{index:05}.png", folder / "y" / f"{index:05}.png")
        write_image(pair.x, np.roll(kinds[index % 8], 7 * index, 1))
        write_image(pair.y, np.roll(kinds[(index + 3) % 8], 7 * index, 1))
        pairs.append(pair)
    return pairs


def plain_loop(pairs: list[PairPaths], out: Path) -> tuple[float, float]:
    """Fuse pairs one after the other; returns CPU time and time of each, in ms."""
    out.mkdir()
    with Fuser.load(BUNDLE, "onnxruntime", threads=1) as fuser:
        fuser(read_image(pairs[0].x), read_image(pairs[0].y))
        start, cpu = time.perf_counter(), time.process_time()
        for pair in pairs:
            write_image(out / f"{pair.name}.png", fuser(read_image(pair.x), read_image(pair.y)))
        count = len(pairs) / 1000
        return (time.process_time() - cpu) / count, (time.perf_counter() - start) / count


def bulk_run(folder: Path, out: Path, actors: int) -> tuple[float, float]:
    """Fuse the pairs of a folder with `fuse_in_bulk`; returns as `plain_loop`, from the first result to the last."""
    marks: list[tuple[int, float, float]] = []

    def on_progress(done: int, total: int) -> None:
        marks.append((done, tree_cpu_seconds(), time.perf_counter()))

    options = BulkOptions(backend="onnxruntime", threads=1, actors=actors)
    fuse_in_bulk(BUNDLE, folder / "x", folder / "y", out, options, on_progress=on_progress)
    (first, cpu, start), (last, cpu_end, end) = marks[1], marks[-1]
    count = (last - first) / 1000
    return (cpu_end - cpu) / count, (end - start) / count


class MadeUpFolders(DiskStorage):
    """Folders with as many files as wanted, which are not on the disk."""

    def __init__(self, count: int) -> None:
        """Take the number of files in each folder."""
        self._count = count

    def is_folder(self, folder: Path) -> bool:
        """Return whether there is a folder: always."""
        return True

    def list_entries(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """Yield the names of the files in a folder, in another order than theirs."""
        for number in range(self._count):
            yield f"pair-{number * 7919 % self._count:07}.png", False


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yield a list that holds, after the block, the peak of this process's own memory in it, in MB."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            text = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(text.partition("RssAnon:")[2].split()[0]) / 1000)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def feed(rows: int, actors: int, address: str | None) -> None:
    """List pairs that are made up, and feed them to actors that do nothing; prints times and memory."""
    passes.BulkWorker = IdleWorker  # type: ignore[misc]  # in this process, which tells Ray what the actor is
    with ray_session(address) as session, peak_memory() as peak:
        settings = WorkerSettings(
            bundle=ship_bundle(BUNDLE, nodes=session.nodes),
            options=BulkOptions(),
            prompt=Prompt(None, None),
            sources=("/", "/"),
            out="/",
            container="files",
            is_resumed=False,
            run="measure",
        )
        time.sleep(0.2)
        before = peak[0]
        start = time.perf_counter()
        storage = MadeUpFolders(rows)
        pairs, _ = list_pair_columns(SourceFolder(storage, "/x"), SourceFolder(storage, "/y"), None, None)
        listed, cpu = time.perf_counter(), time.process_time()
        in_listing = peak[0]
        units = PairUnits(pairs, actors)
        first = 0.0
        num_done = 0
        for _, result in passes.run_passes(units, settings, passes.PoolSize(actors, 1, 0)):
            first = first or time.perf_counter()
            num_done += result.num_fused
        end = time.perf_counter()
        assert num_done == rows
        driver_cpu = time.process_time() - cpu
    print(
        f"{rows} pairs without work in {len(units)} slices: listed in {listed - start:.1f} s, first result after "
        f"{first - listed:.1f} s, last one after {end - first:.1f} s more; {driver_cpu:.1f} s of CPU in the driver; "
        f"memory of the driver: {before:.0f} MB before, {in_listing:.0f} MB when listed, at most {peak[0]:.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--address", help="of a cluster that takes the rows")
    options = parser.parse_args()
    if options.rows:
        feed(options.rows, options.actors, options.address)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = write_pairs(folder, options.pairs, 480, 640)
        plain = plain_loop(pairs, folder / "plain")
        bulk = bulk_run(folder, folder / "bulk", options.actors)
        again = plain_loop(pairs, folder / "again")
        equal = all(
            (folder / "bulk" / f"{pair.name}.png").read_bytes()
            == (folder / "plain" / f"{pair.name}.png").read_bytes()
            for pair in pairs
        )
    for label, (cpu, wall) in (("plain loop", plain), ("tcmoa bulk", bulk), ("plain loop again", again)):
        print(f"{label}: {cpu:.1f} ms of CPU a pair, {wall:.1f} ms")
    over = bulk[0] - (plain[0] + again[0]) / 2
    print(f"{over:.1f} ms of CPU a pair over the plain loop; all files equal: {equal}")


if __name__ == "__main__":
    main()
