"""Overhead of a stream: milliseconds per frame with a backend that only copies. Prints Markdown.

    python benchmarks/stream_overhead.py BUNDLE [X Y] [--frames 300] [--rounds 3]

BUNDLE determines the frame size. Without X and Y both sources are images in memory, else files that the stream
decodes. `outside the backend` is the time between frames. Reading, pairing and output overlap with fusing, so this is
the overhead for a backend that takes no time, and an upper bound for others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime import Bundle, Fuser, Stream
from tcmoa_runtime.contract import FUSED, PROMPT, X
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.interfaces import Source, SourceFrame
from tcmoa_runtime.streams.sources import open_source

BASE = Fraction(1, 25)


class Copying:
    """A backend that returns x."""

    name = "copying"

    def __init__(self, bundle: Bundle) -> None:
        self._prompt = {
            s.name: np.zeros(s.shape, np.float32) for s in bundle.contract.outputs if s.name == PROMPT
        }

    def infer(self, inputs: Any) -> dict[str, NDArray[Any]]:
        """Return x, and prompts of zeros if the bundle has them."""
        return {FUSED: inputs[X].copy(), **self._prompt}

    def close(self) -> None:
        """Release nothing."""


class MemorySource:
    """A source of `count` equal images that takes no time to read."""

    name, live, time_base, rate = "memory", False, BASE, Fraction(25)

    def __init__(self, size: tuple[int, int], count: int) -> None:
        self.size, self._count, self._index = size, count, 0
        self._image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)

    def read(self) -> SourceFrame | None:
        """Return the next frame."""
        if self._index == self._count:
            return None
        self._index += 1
        return SourceFrame(self._image, self._index, BASE, time.monotonic(), self._index - 1)

    def close(self) -> None:
        """End the source."""
        self._count = self._index


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("sources", nargs="*", help="x and y; images in memory by default")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if len(options.sources) not in (0, 2):
        parser.error("expected both X and Y, or neither")
    bundle = Bundle.open(options.bundle)
    print("| round | frames | outside the backend, ms per frame, p50 | p99 | conversion and copies, p50 |")
    print("|---|---|---|---|---|")
    for number in range(options.rounds):
        fuser = Fuser(bundle, Copying(bundle), fit="resize")
        arrivals: list[float] = []
        stream = Stream(
            fuser,
            *_sources(fuser, options.sources, options.frames),
            StreamOptions(frames=options.frames),
            on_frame=lambda _, seen=arrivals: seen.append(time.perf_counter()),  # type: ignore[misc]
        )
        stats = stream.run().snapshot()
        steps = np.diff(arrivals[10:]) * 1000
        print(
            f"| {number + 1} | {stats['frames']} | {statistics.median(steps):.2f} | "
            f"{np.percentile(steps, 99):.2f} | {stats['stages_ms']['fuse']['p50']:.2f} |"
        )


def _sources(fuser: Fuser, given: list[str], count: int) -> tuple[Source, Source]:
    if given:
        return open_source(given[0]), open_source(given[1])
    return MemorySource(fuser.size, count), MemorySource(fuser.size, count)


if __name__ == "__main__":
    main()
