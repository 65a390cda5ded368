"""Measuring quantized graphs against the float32 bundle on held-out pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import onnx
from numpy.typing import NDArray

from tcmoa_calibration import metrics
from tcmoa_calibration.quantize.error import QuantizationError
from tcmoa_calibration.quantize.result_cache import ResultCache
from tcmoa_calibration.quantize.scheme import Scheme
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.sample_pairs import SamplePair, fused_to_rgb, graph_inputs
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED
from tcmoa_runtime.typing import Frame

Measure = Callable[[Scheme, Sequence[str]], QuantizationError]
"""Measures the graph that a scheme gives, with some groups in 8 bits."""


class Evaluator:
    """Measures the error of quantized graphs; results in the cache are not measured again."""

    def __init__(
        self,
        bundle: Bundle,
        pairs: Sequence[SamplePair],
        quantize: Callable[[Scheme, Sequence[str]], onnx.ModelProto],
        cache: ResultCache,
        on_measured: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the reference and a way to make graphs.

        Args:
            bundle: The float32 bundle.
            pairs: Held-out pairs.
            quantize: Makes the graph of a scheme with some groups in 8 bits.
            cache: Results so far.
            on_measured: Called after each measurement.
        """
        self._bundle, self._pairs, self._quantize = bundle, pairs, quantize
        self._cache, self._on_measured = cache, on_measured
        self._reference: list[tuple[Frame, float]] = []

    def measure(self, scheme: Scheme, groups: Sequence[str]) -> QuantizationError:
        """Measure the graph of a scheme with `groups` in 8 bits."""
        name = f"{scheme.smoothing:g} {scheme.ranges} {' '.join(sorted(groups))}"
        error = self._cache.get(name)
        if error is None:
            error = self._compare(self._quantize(scheme, groups))
            self._cache.put(name, error)
        self._on_measured()
        return error

    def _compare(self, model: onnx.ModelProto) -> QuantizationError:
        session = new_session(model)
        squared_errors, drops, differences = [], [], []
        for pair, (expected, qabf) in zip(self._pairs, self._fuse_reference(), strict=True):
            outputs = session.run([FUSED], graph_inputs(self._bundle, pair))
            fused = fused_to_rgb(self._bundle, np.asarray(outputs[0]))
            difference = np.abs(fused.astype(np.int16) - expected)
            squared_errors.append(float(np.mean(difference.astype(np.float64) ** 2)))
            drops.append(qabf - metrics.qabf(pair.x, pair.y, fused))
            differences.append(difference)
        stacked: NDArray[np.int16] = np.stack(differences)
        return QuantizationError(
            mean_squared_error=float(np.mean(squared_errors)),
            worst_mean_squared_error=max(squared_errors),
            qabf_drop=float(np.mean(drops)),
            max_difference=int(stacked.max()),
            differing=float(np.mean(stacked > 0)),
            beyond_one=float(np.mean(stacked > 1)),
        )

    def _fuse_reference(self) -> list[tuple[Frame, float]]:
        """Return the float32 frame and its Qabf for each pair; they are computed once."""
        if not self._reference:
            with closing(load_backend(self._bundle, "onnxruntime")) as backend:
                for pair in self._pairs:
                    outputs = backend.infer(graph_inputs(self._bundle, pair))
                    fused = fused_to_rgb(self._bundle, outputs[FUSED])
                    self._reference.append((fused, metrics.qabf(pair.x, pair.y, fused)))
        return self._reference
