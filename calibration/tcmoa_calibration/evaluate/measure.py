"""Measuring one pair: read it, let the methods fuse it, compute the metrics and draw the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tcmoa_calibration.evaluate.methods import Method
from tcmoa_calibration.evaluate.pictures import Picture, write_fused, write_sources
from tcmoa_calibration.evaluate.registration import Registration
from tcmoa_calibration.evaluate.runners import FusedImage, MethodRunner, load_runner
from tcmoa_calibration.metrics import METRICS, Profile
from tcmoa_calibration.metrics.planes import Triple
from tcmoa_runtime.errors import InputError, MemoryShortageError, TcmoaError
from tcmoa_runtime.images import stretch_to_uint8
from tcmoa_runtime.options.evaluate import MetricName
from tcmoa_runtime.pairs import PairPaths, read_pair
from tcmoa_runtime.typing import Frame


@dataclass(frozen=True)
class MeasureSettings:
    """Settings that all pairs share.

    Attributes:
        profile: How the metrics are computed.
        metrics: Names of the metrics.
        methods: The methods.
        pictures: Folder for pictures; None to draw none.
        registration: How the two sources are aligned before they are measured; None: they are registered already.
    """

    profile: Profile
    metrics: tuple[MetricName, ...]
    methods: tuple[Method, ...]
    pictures: Path | None = None
    registration: Registration | None = None


@dataclass(frozen=True)
class PairJob:
    """A pair, and the methods to measure on it.

    Attributes:
        pair: The pair.
        x_hash: SHA-256 of the file of x.
        y_hash: SHA-256 of the file of y.
        keys: Cache key of each result by the method's index in MeasureSettings.
    """

    pair: PairPaths
    x_hash: str
    y_hash: str
    keys: dict[int, str]


@dataclass(frozen=True)
class Measurement:
    """The metrics of one method on one pair.

    Attributes:
        values: Values by metric; None if the metric has no value.
        skipped: Reason by metric without a value.
        resized: Whether the frames were resized to the bundle's size, and the result resized back.
        stretched: Whether a source had 16 bits and was stretched to 8, as the Fuser does.
        pictures: Pictures by kind: `x`, `y`, `fused`, `difference`, `prompt`.
    """

    values: dict[str, float | None]
    skipped: dict[str, str] = field(default_factory=dict)
    resized: bool = False
    stretched: bool = False
    pictures: dict[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A measurement, or the error in its place.

    Attributes:
        pair: Name of the pair.
        method: Index of the method; None if the pair itself cannot be read.
        result: The measurement or the error.
    """

    pair: str
    method: int | None
    result: Measurement | TcmoaError


@dataclass(frozen=True)
class JobResult:
    """What a worker process replies to a job.

    Attributes:
        outcomes: See `PairEvaluator.measure`.
        warnings: Texts of the user warnings that were raised.
    """

    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceImages:
    """The sources of a pair, uint8 [H, W] or RGB [H, W, 3].

    Attributes:
        x: The first source, aligned.
        y: The second source, aligned, of the same size.
        stored: Both sources as they are stored: for a method that aligns them itself.
        is_stretched: Whether 16 bits were stretched.
    """

    x: Frame
    y: Frame
    stored: tuple[Frame, Frame]
    is_stretched: bool

    def for_method(self, runner: MethodRunner) -> tuple[Frame, Frame]:
        """Return the sources that a method fuses."""
        return self.stored if runner.aligns else (self.x, self.y)


class PairEvaluator:
    """Measures pairs; a method is loaded when it is needed first."""

    def __init__(self, settings: MeasureSettings) -> None:
        self._settings = settings
        self._runners: dict[int, MethodRunner] = {}

    def measure(self, job: PairJob) -> tuple[Outcome, ...]:
        """Measure one pair.

        Returns:
            One outcome for each method, or a single one if the pair cannot be read.

        Raises:
            InputError: A method cannot be loaded.
            MissingError: A package or device that a method requires is missing.
        """
        for index in job.keys:
            if index not in self._runners:
                self._runners[index] = load_runner(self._settings.methods[index])
        with _one_cv2_thread():
            return tuple(self._measure_methods(job))

    def close(self) -> None:
        """Free the methods."""
        for runner in self._runners.values():
            runner.close()
        self._runners = {}

    def _measure_methods(self, job: PairJob) -> Iterator[Outcome]:
        name = job.pair.name
        try:
            sources = read_sources(job.pair, self._settings.registration)
        except InputError as error:
            yield Outcome(name, None, error)
            return
        triple: Triple | None = None
        for index, key in job.keys.items():
            result: Measurement | TcmoaError
            try:
                runner = self._runners[index]
                fused = runner.fuse(name, *sources.for_method(runner))
                triple = (
                    triple.with_fused(fused.image) if triple else Triple(sources.x, sources.y, fused.image)
                )
                values, skipped = compute_metrics(triple, self._settings)
                pictures = self._draw(job, key, sources, fused)
                result = Measurement(values, skipped, fused.resized, sources.is_stretched, pictures)
            except TcmoaError as error:
                result = error
            except MemoryError:
                result = out_of_memory(name)
            except Exception as error:  # an internal error of one pair must not stop the others
                text = " ".join(f"{type(error).__name__}: {error}".split())
                result = TcmoaError(f"internal error: {text}", subject=name)
            yield Outcome(name, index, result)

    def _draw(self, job: PairJob, key: str, sources: SourceImages, fused: FusedImage) -> dict[str, Picture]:
        folder = self._settings.pictures
        if folder is None:
            return {}
        registration = self._settings.registration
        hashes = [job.x_hash, job.y_hash]
        if registration is not None:
            hashes = [hashlib.sha256(f"{hash_} {registration.key}".encode()).hexdigest() for hash_ in hashes]
        pictures = write_sources(folder, sources.x, sources.y, *hashes)
        return {**pictures, **write_fused(folder, key, sources.x, sources.y, fused)}


def read_sources(pair: PairPaths, registration: Registration | None = None) -> SourceImages:
    """Read a pair, stretch 16 bits to 8 as the Fuser does, and align the sources.

    Raises:
        InputError: A file is not a readable image, or the two sizes differ and there is no registration.
    """
    images = read_pair(pair, same_size=registration is None)
    is_16_bit = [image.dtype == np.uint16 for image in images]
    x, y = (stretch_to_uint8(image) if deep else image for image, deep in zip(images, is_16_bit, strict=True))
    stored = x, y
    if registration is not None:
        x, y = registration(x, y)
    return SourceImages(x, y, stored, any(is_16_bit))


def compute_metrics(
    triple: Triple, settings: MeasureSettings
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Compute every metric of the settings; return the values, and the reasons for those without a value."""
    values: dict[str, float | None] = {}
    skipped: dict[str, str] = {}
    for name in settings.metrics:
        try:
            values[name] = METRICS[name].compute(triple, settings.profile)
        except TcmoaError as error:
            values[name] = None
            skipped[name] = error.problem
    return values, skipped


def out_of_memory(name: str) -> MemoryShortageError:
    """Return the error for a pair that does not fit into memory."""
    return MemoryShortageError(
        "out of memory",
        subject=name,
        remedy="Close other programs, or use fewer processes, e.g. {jobs}",
        settings={"jobs": 1},
    )


@contextmanager
def _one_cv2_thread() -> Iterator[None]:
    """Use one OpenCV thread: there is a process for each core."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
