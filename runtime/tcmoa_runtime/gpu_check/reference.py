"""A bundle's graph in ONNX Runtime on the CPU, whatever GPU providers are installed."""

from __future__ import annotations

import os
from typing import cast

import onnxruntime as ort

from tcmoa_runtime.backends.base import Outputs, Tensors, check_inputs
from tcmoa_runtime.backends.denormals import flushed_denormals
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.checked_graph import checked_graph
from tcmoa_runtime.errors import BundleError, TcmoaError, first_line


class CpuReference:
    """A `Backend` whose frames those of a GPU are compared with.

    Raises:
        BundleError: ONNX Runtime cannot run the graph on the CPU, e.g. because it is in bf16.
    """

    name = "onnxruntime (CPU)"

    def __init__(self, bundle: Bundle) -> None:
        self._contract = bundle.contract
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors
        # Threads that wait by spinning would slow down what is measured beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with checked_graph(bundle) as graph:
            source = graph if isinstance(graph, bytes) else os.fspath(graph)
            try:
                self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
            except (
                Exception
            ) as error:  # the exceptions of ONNX Runtime have no common base class but Exception
                raise BundleError(
                    f"ONNX Runtime cannot run the graph on the CPU ({first_line(error)})", subject="reference"
                ) from error

    def infer(self, inputs: Tensors) -> Outputs:
        """Run the graph once; see `Backend.infer`."""
        check_inputs(self._contract.inputs, inputs)
        names = [spec.name for spec in self._contract.outputs]
        try:
            with flushed_denormals():
                results = self._session.run(names, dict(inputs))
        except Exception as error:  # as above
            raise TcmoaError(f"ONNX Runtime failed to run the graph ({first_line(error)})") from error
        return cast("Outputs", dict(zip(names, results, strict=True)))

    def close(self) -> None:
        """Do nothing; see `Backend`."""
