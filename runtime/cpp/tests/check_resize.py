"""Compare the library's resizing with the Python runtime's, which is OpenCV's: the same bytes for many sizes.

python check_resize.py PROGRAM
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from tcmoa_runtime.images import resize_frame

Size = tuple[int, int]


def sizes(rng: np.random.Generator) -> Iterator[tuple[Size, Size]]:
    """Yield pairs of sizes (height, width): small, large, odd, whole factors, and one side only."""
    yield from [
        ((480, 640), (448, 448)),
        ((1200, 1920), (480, 640)),
        ((75, 100), (480, 640)),
        ((1, 1), (9, 7)),
    ]
    for index in range(400):
        before, after = rng.integers(1, 260, 2), rng.integers(1, 260, 2)
        if index % 5 == 1:
            after = np.maximum(before // rng.integers(1, 6, 2), 1)
        elif index % 5 == 2:
            before = after * rng.integers(1, 6, 2)
        elif index % 5 == 3:
            after[index % 2] = before[index % 2]
        yield (int(before[0]), int(before[1])), (int(after[0]), int(after[1]))


def main() -> None:
    """Run the comparison; a difference exits with its sizes."""
    rng = np.random.default_rng(0)
    count = 0
    with subprocess.Popen(sys.argv[1:2], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for before, after in sizes(rng):
            channels = int(rng.choice([1, 3]))
            image = rng.integers(0, 256, (*before, channels), np.uint8)
            program.stdin.write(np.array([*before, channels, *after], np.int64).tobytes() + image.tobytes())
            program.stdin.flush()
            result = np.frombuffer(program.stdout.read(after[0] * after[1] * channels), np.uint8)
            expected = resize_frame(image, after)
            different = int((result != expected.ravel()).sum())
            assert not different, f"{before} to {after}, {channels} channels: {different} bytes differ"
            count += 1
        program.stdin.close()
    print(f"{count} images resized to the same bytes")


if __name__ == "__main__":
    main()
