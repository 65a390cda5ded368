"""Model repositories for NVIDIA's Triton Inference Server: `write_model_repository`.

A bundle becomes models of Triton. A model of the `python` backend runs this runtime, and so fuses whatever
`tcmoa_runtime.Fuser` fuses. A model of the `onnxruntime`, `openvino` or `tensorrt` backend is the bundle's graph or
engine alone, with tensors of exactly its shapes.
"""

from __future__ import annotations

from tcmoa_runtime.model_repository.write import ModelRepository, RepositoryModel, write_model_repository

__all__ = ["ModelRepository", "RepositoryModel", "write_model_repository"]
