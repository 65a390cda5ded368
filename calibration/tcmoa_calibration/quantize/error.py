"""How much quantization changes the image, and how much it may."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tcmoa_runtime.options.quantize import DEFAULT_MIN_PSNR_DB, QuantizeOptions
from tcmoa_runtime.typing import JsonObject


@dataclass(frozen=True)
class QuantizationError:
    """The difference between the fused frames of a quantized and of the float32 graph: a measure, not an exception.

    Attributes:
        mean_squared_error: Over all values of all frames, in squared gray levels.
        worst_mean_squared_error: Of the frame with the largest error.
        qabf_drop: Mean Qabf of float32 minus that of the quantized graph; negative if it rose.
        max_difference: Largest difference of a value, in gray levels.
        differing: Share of all values that differ.
        beyond_one: Share of all values that differ by more than one gray level.
    """

    mean_squared_error: float
    worst_mean_squared_error: float
    qabf_drop: float
    max_difference: int
    differing: float
    beyond_one: float

    @property
    def psnr_db(self) -> float:
        """PSNR over all frames in dB; infinite if nothing differs."""
        return _psnr_db(self.mean_squared_error)

    @property
    def worst_psnr_db(self) -> float:
        """PSNR of the frame with the largest error in dB; infinite if nothing differs."""
        return _psnr_db(self.worst_mean_squared_error)

    def describe(self) -> str:
        """Describe the error in one line."""
        return f"{self.psnr_db:.2f} dB (worst pair {self.worst_psnr_db:.2f}), Qabf {-self.qabf_drop:+.4f}"

    def to_json(self) -> JsonObject:
        """Return PSNR and drop of Qabf as a JSON object; an infinite PSNR becomes null."""
        return {
            "psnr_db": self.psnr_db if math.isfinite(self.psnr_db) else None,
            "worst_psnr_db": self.worst_psnr_db if math.isfinite(self.worst_psnr_db) else None,
            "qabf_drop": self.qabf_drop,
        }


@dataclass(frozen=True)
class ErrorBudget:
    """Limits of a quantization error; None is no limit."""

    min_psnr: float | None = None
    max_qabf_drop: float | None = None

    @classmethod
    def from_options(cls, options: QuantizeOptions) -> ErrorBudget:
        """Return the limits of the options; `DEFAULT_MIN_PSNR_DB` if they have none."""
        if options.min_psnr is None and options.max_qabf_drop is None:
            return cls(min_psnr=DEFAULT_MIN_PSNR_DB)
        return cls(options.min_psnr, options.max_qabf_drop)

    def allows(self, error: QuantizationError) -> bool:
        """Return whether an error is within the limits."""
        return (self.min_psnr is None or error.psnr_db >= self.min_psnr) and (
            self.max_qabf_drop is None or error.qabf_drop <= self.max_qabf_drop
        )

    def describe(self) -> str:
        """Describe the limits in one line."""
        limits = [] if self.min_psnr is None else [f"at least {self.min_psnr:g} dB"]
        limits += [] if self.max_qabf_drop is None else [f"a drop of Qabf of at most {self.max_qabf_drop:g}"]
        return " and ".join(limits)

    def to_json(self) -> JsonObject:
        """Return the limits as a JSON object."""
        return {"min_psnr": self.min_psnr, "max_qabf_drop": self.max_qabf_drop}


def _psnr_db(mean_squared_error: float) -> float:
    return 10 * math.log10(255**2 / mean_squared_error) if mean_squared_error > 0 else math.inf
