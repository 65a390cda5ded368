"""One pair at a time: read it, let the contestants fuse it, measure and draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcmoa_calibration.evaluate.contestants import Contestant
from tcmoa_calibration.evaluate.entrants import Entrant, Fusion, Image, enter
from tcmoa_calibration.evaluate.pictures import Picture, write_fusion, write_sources
from tcmoa_calibration.metrics import METRICS, Profile
from tcmoa_calibration.metrics.planes import Triple
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.images import read_image, stretch_to_uint8
from tcmoa_runtime.typing import Frame

NO_MEMORY: Final = "out of memory: close other programs, or measure with fewer --jobs"


@dataclass(frozen=True)
class Plan:
    """What is the same for all pairs."""

    profile: Profile
    metrics: tuple[str, ...]
    contestants: tuple[Contestant, ...]
    pictures: str | None = None
    """Folder for pictures; None draws none."""

    def to_json(self) -> dict[str, Any]:
        """For `from_json`, in another process."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Plan:
        """What `to_json` gave."""
        entries = tuple(Contestant(**entry) for entry in values["contestants"])
        return Plan(**{**values, "metrics": tuple(values["metrics"]), "contestants": entries})


@dataclass(frozen=True)
class Task:
    """A pair, and which contestants are to be measured on it: positions in the plan, with the keys of their results."""

    name: str
    x: str
    y: str
    x_hash: str
    y_hash: str
    keys: dict[int, str]

    @staticmethod
    def from_json(values: dict[str, Any]) -> Task:
        """What `dataclasses.asdict` gave; JSON knows text keys only."""
        return Task(**{**values, "keys": {int(i): key for i, key in values["keys"].items()}})


@dataclass(frozen=True)
class Measured:
    """A contestant on a pair: figures, or `error`, one line that says why there are none."""

    contestant: int | None
    """Position in the plan; None where the pair itself is at fault."""
    error: str | None = None
    fault: bool = False
    """Whether the error is ours, not the user's."""
    values: dict[str, float | None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Metric without a value: why."""
    resized: bool = False
    stretched: bool = False
    """Whether a source had 16 bits, stretched to 8 as the Fuser does."""
    pictures: dict[str, Picture] = field(default_factory=dict)


class Measurer:
    """Measures pairs by a plan; contestants are loaded when their turn first comes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._entrants: dict[int, Entrant] = {}

    def measure(self, task: Task) -> list[Measured]:
        """All that is asked of one pair. Raises InputError or MissingError where a contestant cannot be loaded."""
        for i in task.keys:
            if i not in self._entrants:
                self._entrants[i] = enter(self.plan.contestants[i])
        with _one_cv2_thread():
            try:
                x, y, stretched = read_pair(task.x, task.y)
            except InputError as error:
                return [Measured(None, str(error))]
            triple: Triple | None = None
            results = []
            for i, key in task.keys.items():
                try:
                    fusion = self._entrants[i].fuse(task.name, x, y)
                    triple = triple.with_fused(fusion.image) if triple else Triple(x, y, fusion.image)
                    values, skipped = evaluate_triple(triple, self.plan)
                    pictures = self._draw(task, key, x, y, fusion)
                    results.append(
                        Measured(i, None, False, values, skipped, fusion.resized, stretched, pictures)
                    )
                except TcmoaError as error:
                    results.append(Measured(i, str(error), not isinstance(error, InputError)))
                except MemoryError:
                    results.append(Measured(i, f"{task.name}: {NO_MEMORY}", True))
                except Exception as error:  # one pair's fault must not take the others along
                    told = " ".join(f"{type(error).__name__}: {error}".split())
                    results.append(Measured(i, f"{task.name}: fault: {told}", True))
            return results

    def _draw(self, task: Task, key: str, x: Frame, y: Frame, fusion: Fusion) -> dict[str, Picture]:
        if self.plan.pictures is None:
            return {}
        folder = Path(self.plan.pictures)
        sources = write_sources(folder, x, y, task.x_hash, task.y_hash)
        return {**sources, **write_fusion(folder, key, x, y, fusion)}

    def close(self) -> None:
        """Free the contestants."""
        for entrant in self._entrants.values():
            entrant.close()
        self._entrants = {}


def read_pair(x_path: str | Path, y_path: str | Path) -> tuple[Frame, Frame, bool]:
    """x and y as uint8 [H, W] or RGB [H, W, 3], and whether 16 bits were stretched; InputError where they differ."""
    images: list[Image] = [read_image(path) for path in (x_path, y_path)]
    (hx, wx), (hy, wy) = (image.shape[:2] for image in images)
    if (hx, wx) != (hy, wy):
        raise InputError(
            f"{x_path} is {wx}x{hx} and {y_path} {wy}x{hy}: expected two registered images of one size"
        )
    deep = [image.dtype == np.uint16 for image in images]
    x, y = (stretch_to_uint8(i) if is_deep else i for i, is_deep in zip(images, deep, strict=True))
    return x, y, any(deep)


def evaluate_triple(triple: Triple, plan: Plan) -> tuple[dict[str, float | None], dict[str, str]]:
    """Every metric of the plan, and for those without a value the reason."""
    values: dict[str, float | None] = {}
    skipped: dict[str, str] = {}
    for name in plan.metrics:
        metric, side = METRICS[name], triple.min_side
        values[name] = None
        if side < metric.min_side:
            skipped[name] = f"needs {metric.min_side} pixels a side, the image has {side}"
            continue
        try:
            values[name] = metric.compute(triple, plan.profile)
        except TcmoaError as error:
            skipped[name] = str(error)
    return values, skipped


@contextmanager
def _one_cv2_thread() -> Iterator[None]:
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
