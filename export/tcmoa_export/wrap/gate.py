"""The gate: a wrapped bundle against the original network, and against pictures of the authors' script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcmoa_export.parity import Parity, ParityError, Results, measure_parity
from tcmoa_export.wrap.network import Network
from tcmoa_export.wrap.plain import fuse_plainly
from tcmoa_export.wrap.plan import Plan
from tcmoa_runtime.backends.base import Backend
from tcmoa_runtime.contract import HELD_EXTREMES, OWN_EXTREMES, X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES, format_size, in_order, read_frame, to_frame
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import Frame, FrameSize, JsonObject, OnMessage

MAX_BEYOND_ONE: Final = 0.001
"""Largest share of values that may differ by more than one gray level: guided filters amplify rounding."""

MAX_PAIRS: Final = 3
"""Pairs that are fused for the comparison."""

MIN_SPAN: Final = 3
"""Gray levels that a result spans at least: with fewer it has another range than stated."""


@dataclass(frozen=True)
class SourcePair:
    """Two frames in the channel order and channels of a bundle.

    Attributes:
        name: Name of the pair.
        x: First source, uint8 [H, W, 3 or 1].
        y: Second source.
    """

    name: str
    x: Frame
    y: Frame


CLOSE_DB: Final = 40.0
"""Least PSNR to the pictures of a network's own script that other roundings explain."""


@dataclass(frozen=True)
class ReferenceComparison:
    """How close results are to pictures that the network's own script made.

    Attributes:
        pictures: Names of the pairs.
        psnr_db: PSNR over all of them; None where they are equal.
        max_difference: Largest difference in gray levels.
        beyond_one: Share of values that differ by more than one gray level.
    """

    pictures: list[str]
    psnr_db: float | None
    max_difference: int
    beyond_one: float

    @property
    def is_close(self) -> bool:
        """Whether the conventions are the script's: rounding and small filters differ less."""
        return self.psnr_db is None or self.psnr_db >= CLOSE_DB

    def to_dict(self) -> JsonObject:
        """Return plain values for bundle.json."""
        return {
            "pictures": list(self.pictures),
            "psnr_db": self.psnr_db,
            "max_difference": self.max_difference,
            "beyond_one": self.beyond_one,
        }


def read_pairs(pairs: Sequence[PairPaths], plan: Plan, *, resize: bool = True) -> list[SourcePair]:
    """Read source pairs in the size, channels and channel order of the plan.

    Args:
        pairs: The files.
        plan: The plan.
        resize: Whether pictures of another size are resized; otherwise they are refused.

    Raises:
        InputError: A file cannot be read, or has another size.
    """
    return [
        SourcePair(
            pair.name,
            _read(pair.x, plan.size, plan.frame_channels("x"), plan, resize=resize),
            _read(pair.y, plan.size, plan.frame_channels("y"), plan, resize=resize),
        )
        for pair in pairs
    ]


def _read(path: Path, size: FrameSize, channels: int, plan: Plan, *, resize: bool) -> Frame:
    frame = read_frame(path)
    if frame.shape[:2] != size:
        if not resize:
            raise InputError(
                f"{format_size(frame.shape)}; expected {format_size(size)} as the bundle, to compare with a reference",
                subject=path,
                remedy="Wrap the network for this size",
            )
        frame = np.asarray(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return to_frame(frame, "frame", 1) if channels == 1 else in_order(frame, plan.channel_order)


def fuse_with_bundle(backend: Backend, plan: Plan, pairs: Sequence[SourcePair]) -> list[Frame]:
    """Fuse pairs with the graph of a bundle, batch by batch; the last batch repeats its last pair."""
    results: list[Frame] = []
    for start in range(0, len(pairs), plan.batch):
        part = list(pairs[start : start + plan.batch])
        count = len(part)
        part += [part[-1]] * (plan.batch - count)
        inputs: dict[str, NDArray[np.generic]] = {
            X: np.stack([pair.x for pair in part]),
            Y: np.stack([pair.y for pair in part]),
        }
        if plan.stretches:
            held = np.empty((plan.batch, plan.stretches, 2), np.float32)
            held[...] = OWN_EXTREMES
            inputs[HELD_EXTREMES] = held
        results.extend(np.asarray(frame) for frame in backend.infer(inputs)["fused"][:count])
    return results


def check_against_network(
    backend: Backend, network: Network, plan: Plan, pairs: Sequence[SourcePair], on_message: OnMessage
) -> Parity:
    """Compare a bundle with the original network, whose conventions are computed in NumPy.

    Raises:
        ParityError: More than 0.1 % of the values differ by more than one gray level.
        InputError: The network gives numbers that are not finite, or a uniform result.
    """
    expected = []
    for index, pair in enumerate(pairs):
        on_message(f"checking against the network, pair {index + 1} of {len(pairs)}")
        expected.append(fuse_plainly(network, plan, pair.x, pair.y))
    on_message("checking the graph")
    found = fuse_with_bundle(backend, plan, pairs)
    parity = measure_parity(
        Results(fused=found),
        Results(fused=expected),
        kind="fp32",
        pictures=[pair.name for pair in pairs],
        backend=backend.name,
    )
    if not parity.beyond_one <= MAX_BEYOND_ONE:
        raise ParityError(
            f"{parity.beyond_one:.2%} of values differ by more than one gray level from the network with its "
            f"conventions in NumPy; expected at most {MAX_BEYOND_ONE:.1%}, but {_where(found, expected, pairs)}",
            subject=network.subject,
            remedy="Nothing was written. Please report it, with the network if you can",
        )
    _check_range(expected, network.subject)
    return parity


def _where(found: Sequence[Frame], expected: Sequence[Frame], pairs: Sequence[SourcePair]) -> str:
    """Describe the largest difference: pair, pixel and both values."""
    differences = [np.abs(a.astype(np.int16) - b) for a, b in zip(found, expected, strict=True)]
    worst = max(range(len(differences)), key=lambda i: int(differences[i].max()))
    row, col, channel = np.unravel_index(int(differences[worst].argmax()), differences[worst].shape)
    return (
        f"'{pairs[worst].name}' has {found[worst][row, col, channel]} in place of "
        f"{expected[worst][row, col, channel]} at row {row}, column {col}, channel {channel}"
    )


def _check_range(results: Sequence[Frame], subject: str) -> None:
    """Refuse results that show nothing: their range is another than stated."""
    low, high = np.percentile(np.concatenate([frame.reshape(-1) for frame in results]), (0.1, 99.9))
    if high - low < MIN_SPAN:
        raise InputError(
            f"the result spans gray levels {low:.0f} to {high:.0f} only; expected a picture",
            subject=subject,
            remedy="Check {range_in}, {range_out} and {output}",
            settings={"range_in": ..., "range_out": ..., "output": ...},
        )


def find_references(folder: Path, pairs: Sequence[PairPaths]) -> Mapping[str, Path]:
    """Return the picture of each pair in a folder, by the name of the pair.

    Raises:
        InputError: The folder cannot be read, or a pair has none.
    """
    if not folder.is_dir():
        raise InputError("no folder; expected the results of the network's own script", subject=folder)
    images = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}
    missing = [pair.name for pair in pairs if pair.name not in images]
    if missing:
        raise InputError(
            f"no picture for {', '.join(missing[:3])}; expected NAME.EXT for each pair, e.g. {missing[0]}.png",
            subject=folder,
        )
    return {pair.name: images[pair.name] for pair in pairs}


def compare_with_reference(
    backend: Backend, plan: Plan, pairs: Sequence[PairPaths], folder: Path, on_message: OnMessage
) -> ReferenceComparison:
    """Compare the results of a bundle with those of the network's own script, for all pairs.

    Raises:
        InputError: A picture is missing, or has another size.
    """
    references = find_references(folder, pairs)
    squares, count, worst, beyond = 0.0, 0, 0, 0
    for index, pair in enumerate(pairs):
        on_message(f"comparing with the reference, pair {index + 1} of {len(pairs)}")
        found = fuse_with_bundle(backend, plan, read_pairs([pair], plan, resize=False))[0]
        expected = _read(references[pair.name], plan.size, 3, plan, resize=False)
        difference = np.abs(found.astype(np.int16) - expected)
        squares += float(np.sum(difference.astype(np.float64) ** 2))
        count += difference.size
        worst = max(worst, int(difference.max()))
        beyond += int(np.sum(difference > 1))
    psnr = round(10 * math.log10(255**2 * count / squares), 2) if squares else None
    return ReferenceComparison([pair.name for pair in pairs], psnr, worst, beyond / count)


def depends_on_whole_frame(backend: Backend, plan: Plan, pair: SourcePair) -> bool:
    """Whether far pixels change a result, so that tiles of a larger frame cannot be fused each by itself.

    The lower right quarter of both sources is inverted; the upper left quarter of a side must not notice.
    """
    height, width = plan.size
    changed = SourcePair(pair.name, pair.x.copy(), pair.y.copy())
    for frame in (changed.x, changed.y):
        frame[height // 2 :, width // 2 :] = 255 - frame[height // 2 :, width // 2 :]
    before, after = (fuse_with_bundle(backend, plan, [p])[0] for p in (pair, changed))
    corner = (slice(0, max(1, height // 4)), slice(0, max(1, width // 4)))
    difference = np.abs(before[corner].astype(np.int16) - after[corner])
    return bool(np.mean(difference > 0) > MAX_BEYOND_ONE)
