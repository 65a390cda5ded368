"""What a calibration quantizes: the linear layers of a TC-MoA backbone, or the products of a wrapped network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import onnx

from tcmoa_calibration.quantize.activations import ActivationStats, collect_activation_stats
from tcmoa_calibration.quantize.formats import FORMATS
from tcmoa_calibration.quantize.linears import backbone_linears, group_linears
from tcmoa_calibration.quantize.placement import chosen_linears, quantized_results
from tcmoa_calibration.quantize.products import (
    collect_stats,
    find_products,
    group_products,
    quantize_products,
)
from tcmoa_calibration.quantize.scheme import Scheme, quantize_graph
from tcmoa_calibration.sample_pairs import SamplePair
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.graph_forms import prepare
from tcmoa_runtime.options.quantize import QuantizeOptions


class Quantizer(Protocol):
    """Measures the inputs of layers once, and then makes graphs with some groups of them in 8 bits."""

    @property
    def description(self) -> str:
        """Number and kind of layers, e.g. `60 linear layers`."""
        ...

    @property
    def multiplications(self) -> dict[str, int]:
        """Number of multiplications of each group, in the order of the graph."""
        ...

    def count(self, groups: Sequence[str]) -> int:
        """Return how many layers some groups have."""
        ...

    def measure(self, pairs: Sequence[SamplePair], on_pair: Callable[[], None]) -> None:
        """Run the float32 graph on pairs of the bundle's frame size."""
        ...

    def quantize(self, scheme: Scheme, groups: Sequence[str]) -> onnx.ModelProto:
        """Return the graph with some groups in 8 bits; after `measure`."""
        ...


class BackboneQuantizer:
    """The linear layers of a TC-MoA backbone."""

    def __init__(self, model: onnx.ModelProto, bundle: Bundle, options: QuantizeOptions) -> None:
        self._model, self._bundle, self._options = model, bundle, options
        self._linears = backbone_linears(model)
        placement = options.number_format, options.target
        self._groups = group_linears(chosen_linears(self._linears, *placement))
        self._results = quantized_results(self._linears, *placement)
        self._stats: dict[str, ActivationStats] = {}

    @property
    def description(self) -> str:
        """As in `Quantizer`."""
        return f"{len(self._linears)} linear layers"

    @property
    def multiplications(self) -> dict[str, int]:
        """As in `Quantizer`."""
        return {name: sum(x.shape[0] * x.shape[1] for x in group) for name, group in self._groups.items()}

    def count(self, groups: Sequence[str]) -> int:
        """As in `Quantizer`."""
        return sum(len(self._groups[name]) for name in groups)

    def measure(self, pairs: Sequence[SamplePair], on_pair: Callable[[], None]) -> None:
        """As in `Quantizer`."""
        self._stats = collect_activation_stats(
            self._model,
            self._bundle,
            pairs,
            self._linears,
            self._options.seed,
            on_pair,
            results=self._results,
        )

    def quantize(self, scheme: Scheme, groups: Sequence[str]) -> onnx.ModelProto:
        """As in `Quantizer`."""
        number_format = FORMATS[self._options.number_format]
        return quantize_graph(self._model, self._stats, number_format, scheme, groups, self._options.target)


class ProductQuantizer:
    """The convolutions and products of a wrapped network."""

    def __init__(self, model: onnx.ModelProto, bundle: Bundle, options: QuantizeOptions) -> None:
        """Find the products.

        Raises:
            InputError: There are none, or the options are for a TC-MoA backbone only.
        """
        if options.number_format != "int8":
            raise InputError(
                f"{options.number_format}; expected int8, which wrapped networks are calibrated to",
                subject="number format",
                remedy="Use `tcmoa calibrate int8`",
            )
        if options.smoothing:
            raise InputError(
                f"{options.smoothing:g}; expected 0 for a wrapped network, whose layers need not follow a norm",
                subject="smoothing",
                remedy="Leave it out",
            )
        prepare(model)
        self._model, self._bundle, self._options = model, bundle, options
        self._products = find_products(model)
        self._groups = group_products(self._products)
        self._stats: dict[str, ActivationStats] = {}

    @property
    def description(self) -> str:
        """As in `Quantizer`."""
        return f"{len(self._products)} convolutions and products"

    @property
    def multiplications(self) -> dict[str, int]:
        """As in `Quantizer`."""
        return {name: sum(x.multiplications for x in group) for name, group in self._groups.items()}

    def count(self, groups: Sequence[str]) -> int:
        """As in `Quantizer`."""
        return sum(len(self._groups[name]) for name in groups)

    def measure(self, pairs: Sequence[SamplePair], on_pair: Callable[[], None]) -> None:
        """As in `Quantizer`."""
        self._stats = collect_stats(
            self._model, self._bundle, pairs, self._products, self._options.seed, on_pair
        )

    def quantize(self, scheme: Scheme, groups: Sequence[str]) -> onnx.ModelProto:
        """As in `Quantizer`."""
        return quantize_products(self._model, self._stats, scheme, groups)


def quantizer_of(model: onnx.ModelProto, bundle: Bundle, options: QuantizeOptions) -> Quantizer:
    """Return what quantizes a bundle's float32 graph.

    Raises:
        InputError: The graph has no layers that can be quantized, or the options do not fit it.
    """
    kind = BackboneQuantizer if bundle.network is None else ProductQuantizer
    return kind(model, bundle, options)
