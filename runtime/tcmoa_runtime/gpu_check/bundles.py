"""The bundles that the engines of a check are built into: copies in a folder of the check.

TensorRT builds an engine in 8 bits from a quantized graph only, so the bundle is quantized first. The method is fixed
and fast: what is checked is the engine and not the calibration.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine_folders import ENGINES_FOLDER
from tcmoa_runtime.errors import InputError, MissingError
from tcmoa_runtime.gpu_check.target import StepSkippedError
from tcmoa_runtime.images import read_frame, write_image
from tcmoa_runtime.options.gpu_check import DEFAULT_PRECISIONS, GpuCheckPrecision
from tcmoa_runtime.options.quantize import LowPrecision, QuantizeOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.shipped_pairs import shipped_pairs

Quantize: TypeAlias = Callable[[Bundle, Sequence[PairPaths], Path, QuantizeOptions], object]
"""Writes a quantized bundle, see `tcmoa_calibration.quantize.quantize_bundle`."""

MIN_PSNR_DB: Final = 40.0
"""Of the quantized graph to float32; nano has 56 dB (int8) and 55 dB (fp8) on the shipped pair that is held out."""


def precisions_for(bundle: Bundle, chosen: Sequence[GpuCheckPrecision]) -> tuple[GpuCheckPrecision, ...]:
    """Return the precisions to check: those chosen, else the default ones; a bundle that is not fp32 has one only.

    Raises:
        InputError: Another one is chosen than that of a bundle that is not fp32, or fp8 for a wrapped network.
    """
    if bundle.precision != "fp32":
        own: GpuCheckPrecision = next(p for p in (*DEFAULT_PRECISIONS, "fp32") if p == bundle.precision)
        others = ", ".join(precision for precision in dict.fromkeys(chosen) if precision != own)
        if others:
            raise InputError(
                f"{others}; expected {own}, the precision of {bundle.path}",
                subject="precisions",
                remedy="Leave it out, or check a float32 bundle",
            )
        return (own,)
    if bundle.network is None:
        return tuple(dict.fromkeys(chosen)) or DEFAULT_PRECISIONS
    if "fp8" in chosen:
        raise InputError(
            "fp8; expected int8, which wrapped networks are calibrated to",
            subject="precisions",
            remedy="Leave it out",
        )
    return tuple(dict.fromkeys(chosen)) or tuple(p for p in DEFAULT_PRECISIONS if p != "fp8")


class CheckBundles:
    """Copies of a bundle, made when they are first needed, and found again by a later process.

    Args:
        source: The bundle to check.
        folder: Folder for the copies, which exists.
        quantize: Writes a quantized bundle.
    """

    def __init__(self, source: Bundle, folder: Path, quantize: Quantize) -> None:
        self._source, self._folder, self._quantize = source, folder, quantize

    def bundle(self, precision: GpuCheckPrecision) -> Bundle:
        """Return the bundle whose graph is built in a precision.

        Raises:
            StepSkippedError: It must be quantized, and a package for that is missing, or a wrapped network exceeds the
                error that is allowed.
        """
        if (precision == "int8" or precision == "fp8") and self._source.precision != precision:
            return self._quantized(precision)
        path = self._folder / "copy"
        if not path.exists():
            shutil.copytree(self._source.path, path, ignore=shutil.ignore_patterns(ENGINES_FOLDER))
        return Bundle.open(path)

    def _quantized(self, precision: LowPrecision) -> Bundle:
        path = self._folder / precision
        if not path.exists():
            options = QuantizeOptions(
                number_format=precision,
                target="gpu",
                min_psnr=MIN_PSNR_DB,
                smoothing=0.5 if self._source.network is None else 0.0,
                ranges="max",
                fit="resize",
            )
            try:
                self._quantize(self._source, self._pairs(), path, options)
            except MissingError as error:
                raise StepSkippedError(error.render_problem(), remedy=error.remedy) from error
            except InputError as error:  # the error budget: nothing promises that a wrapped network keeps it
                if self._source.network is None:
                    raise
                raise StepSkippedError(error.render_problem()) from error
        return Bundle.open(path)

    def _pairs(self) -> list[PairPaths]:
        """Return the shipped pairs of the bundle's task, and the same mirrored: a calibration needs four."""
        pairs = list(shipped_pairs(self._source.task))
        for pair in list(pairs):
            paths = {name: self._folder / f"{pair.name}-mirrored_{name}.png" for name in "xy"}
            for name, path in paths.items():
                frame = read_frame(pair.x if name == "x" else pair.y)
                write_image(path, np.ascontiguousarray(frame[:, ::-1]))
            pairs.append(PairPaths(f"{pair.name}-mirrored", paths["x"], paths["y"]))
        return pairs
