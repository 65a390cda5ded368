"""Datasheets of the GPUs for which lower bounds of the frame time are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Gpu:
    """Peak rates from a datasheet; 16 bits and FP8 are accumulated in float32.

    Attributes:
        name: Name of the GPU.
        bandwidth: Memory bandwidth in bytes/s.
        fp32: Dense float32 operations/s.
        half: Dense fp16 or bf16 operations/s.
        int8: Dense INT8 operations/s.
        fp8: Dense FP8 operations/s; None where the GPU has no FP8.
        source: Where the numbers are from.
    """

    name: str
    bandwidth: float
    fp32: float
    half: float
    int8: float
    fp8: float | None
    source: str

    def peak(self, precision: str) -> float | None:
        """Return the operations/s in a precision; everything but 16 and 8 bits counts as float32."""
        rates = {"fp16": self.half, "bf16": self.half, "int8": self.int8, "fp8": self.fp8}
        return rates.get(precision, self.fp32)


GPUS: Final = (
    Gpu(
        "A100 SXM 80GB",
        2039e9,
        19.5e12,
        312e12,
        624e12,
        None,
        "NVIDIA A100 Tensor Core GPU datasheet",
    ),
    Gpu(
        "RTX 5090",
        1792e9,
        104.8e12,
        209.5e12,
        838e12,
        419e12,
        "NVIDIA RTX Blackwell GPU architecture whitepaper, appendix A",
    ),
    Gpu(
        "RTX 4090",
        1008e9,
        82.6e12,
        165.2e12,
        660.6e12,
        330.3e12,
        "NVIDIA Ada GPU architecture whitepaper, appendix A",
    ),
    Gpu(
        "RTX A6000",
        768e9,
        38.7e12,
        154.8e12,
        309.7e12,
        None,
        "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix",
    ),
    Gpu(
        "Jetson AGX Orin 64GB",
        204.8e9,
        5.3e12,
        42.5e12,
        85e12,
        None,
        "NVIDIA Jetson AGX Orin technical brief; 8 and 16 bits as a half and a quarter of its 170 sparse INT8 TOPS",
    ),
    Gpu(
        "H100 SXM",
        3350e9,
        66.9e12,
        989.4e12,
        1978.9e12,
        1978.9e12,
        "NVIDIA H100 Tensor Core GPU architecture whitepaper",
    ),
)
"""GPUs that an audit gives bounds for."""
