"""Archives of small pairs for bulk fusion, what the plain Fuser makes of them, and an actor that can be killed."""

import csv
import io
import os
import signal
import tempfile
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_export import export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.bulk.run import fuse_in_bulk
from tcmoa_runtime.bulk.summary import BulkSummary
from tcmoa_runtime.bulk.units import PairSlice
from tcmoa_runtime.bulk.worker import BulkWorker
from tcmoa_runtime.images import encode_image, read_image
from tcmoa_runtime.options.bulk import BulkOptions
from tcmoa_runtime.options.export import ExportOptions

BUNDLE = "nano-vif"
HEIGHT, WIDTH = 48, 64
COUNT = 6
"""Pairs of the archive that tests share."""
NUM_KINDS = 6
"""Different pairs of an archive; the others are copies, so that few must be fused for comparison."""
OPTIONS = {"backend": "onnxruntime", "threads": 1}


def bulk_options(**changes):
    """Options under which every machine gives the same bytes."""
    return BulkOptions(**(OPTIONS | changes))


@lru_cache
def small_bundle() -> str:
    """Return the path of a bundle of a micro model for the size of the pairs, exported once: 10 ms for a pair."""
    out = Path(_folder.name) / "small"
    export_bundle(scrambled(Sizes(64, 4, 2, 64, 4, 2)), ExportOptions(task="vif", size=(HEIGHT, WIDTH)), out)
    return str(out)


_folder = tempfile.TemporaryDirectory(prefix="tcmoa-bulk-")


def write_archive(folder: Path, count: int) -> list[str]:
    """Write pairs of 64x48 into x/ and y/ below a folder, and return their names."""
    rng = np.random.default_rng(5)
    kinds = [
        [cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 2) for _ in "xy"]
        for _ in range(NUM_KINDS)
    ]
    names = [f"pair{index:03}" for index in range(count)]
    for side, source in enumerate("xy"):
        (folder / source).mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(names):
            encoded = encode_image(kinds[index % NUM_KINDS][side], "PNG")
            (folder / source / f"{name}.png").write_bytes(encoded)
    return names


def plain_results(folder: Path, names: list[str], bundle: str = BUNDLE) -> dict[str, bytes]:
    """Return what the plain Fuser makes of the pairs of an archive, as PNG files."""
    made: dict[bytes, bytes] = {}
    results = {}
    with Fuser.load(bundle, "onnxruntime", threads=1) as fuser:
        for name in names:
            files = [folder / source / f"{name}.png" for source in "xy"]
            key = b"".join(path.read_bytes() for path in files)
            if key not in made:
                made[key] = encode_image(fuser(*map(read_image, files)), "PNG")
            results[name] = made[key]
    return results


def images_in(folder: Path, suffix: str = ".png") -> dict[str, bytes]:
    """Return the images in a folder by name."""
    return {path.stem: path.read_bytes() for path in folder.glob(f"*{suffix}")}


def fuse_small(x, y, out, **options):
    """Fuse in bulk with the small bundle."""
    return fuse_in_bulk(small_bundle(), x, y, out, bulk_options(**options))


def counts(summary: BulkSummary) -> tuple[int, int, int]:
    """Return how many pairs were fused, skipped and not fused."""
    return summary.num_fused, summary.num_skipped, len(summary.failures)


def sources_of(folder: Path, name: str) -> list[bytes]:
    """Return the files of a pair of an archive."""
    return [(folder / source / f"{name}.png").read_bytes() for source in "xy"]


def error_rows(data: bytes) -> list[list[str]]:
    """Return the rows of a table of errors, without their header."""
    return list(csv.reader(io.StringIO(data.decode())))[1:]


class FragileWorker(BulkWorker):
    """An actor whose process is killed by a pair named `poison`, always, and once by one named `once`."""

    def fuse(self, unit):
        names = unit.names if isinstance(unit, PairSlice) else ()
        mark = Path(self._settings.out).parent / "killed-once"
        if "poison" in names or ("once" in names and not mark.exists()):
            if "poison" not in names:
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fuse(unit)
