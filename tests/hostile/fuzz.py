"""Fuzzing the readers of graphs and images in Python: bytes are mutated, and inputs with a new outcome are kept.

    PYTHONPATH=tests python -m hostile.fuzz graph 1800    # for half an hour; prints inputs that break a promise

An outcome is an error message without its numbers and names. The corpora are zip files; that of graphs,
runtime/cpp/fuzz/corpus/graph.zip, is also the corpus of libtcmoa's fuzzer.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from hostile.cpu_time import limited_cpu_time
from hostile.write_bundle import CONTRACT, NAME
from tcmoa_runtime import InputError, images
from tcmoa_runtime.graph.check import check_graph
from tcmoa_runtime.graph.wire import GraphError
from tcmoa_runtime.images import read_image

ROOT = Path(__file__).resolve().parents[2]
CORPORA = {
    "graph": ROOT / "runtime" / "cpp" / "fuzz" / "corpus" / "graph.zip",
    "image": Path(__file__).with_name("images.zip"),
}
MAX_SECONDS = 2.0
DATA_BYTES = 64

Target = Callable[[bytes], str]


def check_graph_of(data: bytes) -> str:
    """Check a graph and return the outcome; raises AssertionError where a promise is broken."""
    try:
        check_graph(data, CONTRACT, graph_name=NAME, data_name="fusion.data", data_bytes=DATA_BYTES)
    except GraphError as error:
        line = str(error)
        assert line.isprintable(), line
        return line
    return "accepted"


def read_image_of(data: bytes, suffix: str = ".png") -> str:
    """Read an image and return the outcome; raises AssertionError where a promise is broken."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        try:
            image = read_image(file.name)
        except InputError as error:
            line = str(error).replace(file.name, "")
            assert "\n" not in line, line
            return line
    assert image.size <= 4 * images.MAX_PIXELS
    return f"{image.dtype} of {image.ndim} axes"


TARGETS: dict[str, Target] = {"graph": check_graph_of, "image": read_image_of}


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change a few bytes, or cut, repeat or insert parts."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        size = len(result)
        start = rng.randrange(size + 1)
        end = min(size, start + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
        kind = rng.randrange(7)
        if kind == 0 and size:
            result[start % size] ^= 1 << rng.randrange(8)
        elif kind == 1 and size:
            result[start % size] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del result[start:end]
        elif kind == 3:
            result[start:start] = result[start:end]
        elif kind == 4 and other:
            first = rng.randrange(len(other))
            result[start:start] = other[first : first + rng.choice((1, 4, 16, 256))]
        elif kind == 5:
            result[start:end] = rng.randbytes(end - start)
        else:
            width = rng.choice((2, 4, 8))
            number = rng.choice(
                (0, 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, rng.getrandbits(8 * width))
            )
            result[start : start + width] = number.to_bytes(width, rng.choice(("little", "big")))
    return bytes(result[: 1 << 20])


def outcome_of(target: Target, data: bytes) -> str:
    """Run a target; its outcome without what differs between equal ones, and within `MAX_SECONDS`."""
    with limited_cpu_time(MAX_SECONDS):
        line = target(data)
    return re.sub(r"'[^']*'|\(\[.*?\]\)|-?\d+", "#", line)[:120]


def image_seeds() -> Iterator[bytes]:
    """Yield small images of each kind that is read."""
    rng = np.random.default_rng(0)
    for suffix in (".png", ".tiff", ".jpg", ".bmp", ".webp", ".ppm", ".pgm", ".jp2"):
        for shape in ((5, 7), (5, 7, 3), (5, 7, 4)):
            for dtype in (np.uint8, np.uint16):
                image = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
                try:
                    done, data = cv2.imencode(suffix, image)
                except cv2.error:
                    continue
                if done:
                    yield data.tobytes()


def read_corpus(name: str) -> list[bytes]:
    """Return the inputs of a kept corpus."""
    with zipfile.ZipFile(CORPORA[name]) as file:
        return [file.read(entry) for entry in sorted(file.namelist())]


def write_corpus(name: str, inputs: list[bytes]) -> None:
    """Keep inputs, smallest first of those with the same outcome."""
    kept: dict[str, bytes] = {}
    for data in sorted(inputs, key=len):
        kept.setdefault(outcome_of(TARGETS[name], data), data)
    with zipfile.ZipFile(CORPORA[name], "w", zipfile.ZIP_DEFLATED) as file:
        for data in kept.values():
            file.writestr(zipfile.ZipInfo(hashlib.sha1(data).hexdigest()), data, zipfile.ZIP_DEFLATED)


def fuzz(name: str, inputs: list[bytes], rounds: Iterator[object], seed: int) -> list[bytes]:
    """Mutate inputs; return them with those that had a new outcome."""
    rng, target = random.Random(seed), TARGETS[name]
    pool, outcomes = list(inputs), {outcome_of(target, data) for data in inputs}
    for _ in rounds:
        data = mutate(rng, rng.choice(pool), rng.choice(pool))
        try:
            outcome = outcome_of(target, data)
        except BaseException:
            Path(f"broken-{name}-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
            raise
        if outcome not in outcomes:
            outcomes.add(outcome)
            pool.append(data)
    return pool


def _until(seconds: float) -> Iterator[int]:
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield (count := count + 1)
    print(f"{count} inputs")


if __name__ == "__main__":
    images.MAX_PIXELS = 1 << 20  # so that a header of a few bytes does not take gigabytes thousands of times
    images.MAX_FILE_BYTES = 1 << 24
    chosen = sys.argv[1]
    start = read_corpus(chosen) if CORPORA[chosen].exists() else []
    start += list(image_seeds()) if chosen == "image" else []
    found = fuzz(chosen, start, _until(float(sys.argv[2])), int(time.time()))
    print(f"{len(found)} outcomes, {len(found) - len(start)} of them new")
    write_corpus(chosen, found)
