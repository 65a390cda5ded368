"""From a float32 bundle and real pairs to a bundle in 8 bits.

The inputs of the backbone's linear layers, or of a wrapped network's convolutions and products, are measured on two
thirds of the pairs. Smoothing and ranges are chosen by
the error on the others, the most sensitive groups of layers are kept in float32 until the error is within the budget,
and the graph is written as a new bundle.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from tcmoa_calibration.quantize.allocate import Allocation, TradeOffPoint, allocate_groups
from tcmoa_calibration.quantize.choose import SchemeChoice, choose_scheme
from tcmoa_calibration.quantize.error import ErrorBudget, QuantizationError
from tcmoa_calibration.quantize.evaluator import Evaluator
from tcmoa_calibration.quantize.formats import FORMATS
from tcmoa_calibration.quantize.quantizer import quantizer_of
from tcmoa_calibration.quantize.result_cache import ResultCache, cache_key, pixels_sha256
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.quantize.steps import StepCounter
from tcmoa_calibration.quantize.write import (
    MANIFEST_KEY,
    VERSION,
    parity_record,
    quantization_record,
    write_quantized_bundle,
)
from tcmoa_calibration.sample_fit import read_fitted_split
from tcmoa_calibration.sample_pairs import PairSplit, count_samples
from tcmoa_runtime.bundle import GRAPH, MAX_INLINE_BYTES, Bundle
from tcmoa_runtime.bundle_write import check_target
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.graph_storage import restore_constants
from tcmoa_runtime.log import log_step
from tcmoa_runtime.options.quantize import MIN_PAIRS, QuantizeOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import JsonObject, OnMessage, OnSteps, ignore_steps


@dataclass(frozen=True)
class QuantizationResult:
    """A quantized bundle, and how it was found.

    Attributes:
        bundle: The new bundle.
        choice: Smoothing and ranges, and the error of each scheme that was tried.
        allocation: The groups in float32, the final error, and the trade-off.
        num_groups: Number of groups of the backbone, or of the products of a wrapped network.
        num_linears: Number of linear layers, or products, in 8 bits.
        pairs: The pairs of the calibration, and the held-out ones.
        bytes_before: Size of the files of the float32 bundle.
        bytes_after: Size of the files of the new bundle.
    """

    bundle: Bundle
    choice: SchemeChoice
    allocation: Allocation
    num_groups: int
    num_linears: int
    pairs: PairSplit
    bytes_before: int
    bytes_after: int

    @property
    def scheme(self) -> Scheme:
        """Smoothing and ranges."""
        return self.choice.scheme

    @property
    def error(self) -> QuantizationError:
        """Error of the bundle on the held-out pairs."""
        return self.allocation.error

    @property
    def kept_float32(self) -> list[str]:
        """Groups that stay in float32, the most sensitive first."""
        return self.allocation.kept_float32

    @property
    def num_quantized(self) -> int:
        """Number of groups in 8 bits."""
        return self.num_groups - len(self.kept_float32)

    @property
    def curve(self) -> list[TradeOffPoint]:
        """The trade-off, from all groups in 8 bits downward."""
        return self.allocation.curve

    def to_json(self) -> JsonObject:
        """Return the result as a JSON object."""
        return {
            "bundle": str(self.bundle.path),
            "smoothing": self.scheme.smoothing,
            "ranges": self.scheme.ranges,
            **self.error.to_json(),
            "groups": self.num_groups,
            "kept_float32": self.kept_float32,
            "linears": self.num_linears,
            "size_ratio": self.bytes_after / self.bytes_before,
            "fit_pairs": [pair.name for pair in self.pairs.fit],
            "held_pairs": [pair.name for pair in self.pairs.held_out],
            "skipped": self.pairs.skipped,
            "tried": {str(scheme): error.to_json() for scheme, error in self.choice.tried.items()},
            "sensitivity": {name: error.to_json() for name, error in self.allocation.sensitivity.items()},
            "curve": [point.to_json() for point in self.curve],
        }


def quantize_bundle(
    bundle: Bundle | str | os.PathLike[str],
    pairs: Sequence[PairPaths],
    out: str | os.PathLike[str],
    options: QuantizeOptions | None = None,
    *,
    on_message: OnMessage = log_step,
    on_progress: OnSteps = ignore_steps,
) -> QuantizationResult:
    """Quantize the backbone of a float32 bundle and write the result as a new bundle.

    The same bundle, pairs and options give the same graph. Measurements are kept in a file beside `out` until the
    bundle is written, so that an interrupted calibration continues where it stopped.

    Args:
        bundle: The float32 bundle.
        pairs: Real pairs of the bundle's task.
        out: Folder of the new bundle.
        options: The format, the method, and what the image may lose; None: the defaults.
        on_message: Called with a line of text for each measurement.
        on_progress: Called with the number of finished steps and of the steps that are known so far.

    Raises:
        InputError: Fewer than 4 pairs are usable, the bundle is not float32, `out` must not be replaced, or the error
            exceeds the budget even with most groups in float32. No bundle is written.
        BundleError: The bundle is damaged.
    """
    options = QuantizeOptions() if options is None else options
    source, target = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle), Path(out)
    _check_source(source)
    check_target(target, overwrite=options.overwrite)
    source.check()
    split = read_fitted_split(source, pairs, options.fit, options.max_pairs, MIN_PAIRS, options.seed)
    for line in split.skipped:
        on_message(f"skipped {line}")

    model = restore_constants(onnx.load_from_string(source.read_graph()))
    quantizer = quantizer_of(model, source, options)
    if source.network is not None:
        options = replace(options, smoothing=0.0)
    steps = StepCounter(on_progress)
    steps.expect(len(split.fit))
    on_message(f"measuring the inputs of {quantizer.description} on {count_samples(split.fit)}")
    groups = quantizer.multiplications
    quantizer.measure(split.fit, steps.advance)
    cache = _open_cache(source, target, split, options)
    evaluator = Evaluator(source, split.held_out, quantizer.quantize, cache, steps.advance)
    choice = choose_scheme(evaluator.measure, list(groups), options, len(split.held_out), steps, on_message)
    allocation = allocate_groups(
        evaluator.measure,
        choice.scheme,
        choice.error,
        groups,
        ErrorBudget.from_options(options),
        number_format=options.number_format,
        measure_all=options.sensitivity,
        steps=steps,
        on_message=on_message,
    )
    quantized = [name for name in groups if name not in allocation.kept_float32]
    num_linears = quantizer.count(quantized)
    on_message(f"writing {target}")
    record = quantization_record(
        source,
        options,
        choice.scheme,
        allocation,
        split,
        num_groups=len(groups),
        num_linears=num_linears,
    )
    written = write_quantized_bundle(
        source,
        target,
        quantizer.quantize(choice.scheme, quantized),
        options.number_format,
        {"parity": parity_record(allocation.error, split), MANIFEST_KEY: record},
        overwrite=options.overwrite,
    )
    cache.delete()
    return QuantizationResult(
        written, choice, allocation, len(groups), num_linears, split, _num_bytes(source), _num_bytes(written)
    )


def _check_source(bundle: Bundle) -> None:
    """Raise InputError when a bundle cannot be quantized."""
    if bundle.precision in FORMATS:
        raise InputError(
            f"precision {bundle.precision}; expected a float32 bundle",
            subject=bundle.path,
            remedy="Calibrate the float32 bundle that it was made from",
        )
    if bundle.precision != "fp32":
        raise InputError(
            f"precision {bundle.precision}; expected a float32 bundle",
            subject=bundle.path,
            remedy="Export it with {precision}",
            settings={"precision": "fp32"},
        )
    num_bytes = _num_bytes(bundle)
    if num_bytes > MAX_INLINE_BYTES:
        raise InputError(
            f"{num_bytes / 1e9:.1f} GB; expected at most {MAX_INLINE_BYTES / 1e9:g} GB, which one ONNX file can hold",
            subject=bundle.path,
            remedy="Export a smaller model",
        )


def _open_cache(source: Bundle, target: Path, split: PairSplit, options: QuantizeOptions) -> ResultCache:
    """Open the measurements of an interrupted calibration; others are discarded."""
    key = cache_key(
        VERSION,
        source.files[GRAPH].sha256,
        options.number_format,
        options.target,
        pixels_sha256(split.fit),
        pixels_sha256(split.held_out),
        source.default_prompt if source.has_prompt else None,
        options.seed,
    )
    return ResultCache(target.parent / f".{target.name}.calibration", key)


def _num_bytes(bundle: Bundle) -> int:
    return sum(entry.bytes for entry in bundle.files.values())
