"""Calibration and evaluation: image metrics, comparison of fusion methods, and everything that is measured on samples.

    from tcmoa_calibration import EvaluateOptions, Method, evaluate_pairs, metrics

    metrics.qabf(x, y, fused)
    evaluate_pairs("pairs", [Method.bundle("night-640x480")], EvaluateOptions(metrics=("Qabf", "VIF")), out="results")

Each name is imported when it is first used, so that the metrics need neither ONNX nor PyTorch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcmoa_calibration import metrics
    from tcmoa_calibration.evaluate import Evaluation, Method, evaluate_pairs
    from tcmoa_runtime.options.evaluate import EvaluateOptions

__all__ = ["EvaluateOptions", "Evaluation", "Method", "evaluate_pairs", "metrics"]

_MODULES = {
    "EvaluateOptions": "tcmoa_runtime.options.evaluate",
    "Evaluation": "tcmoa_calibration.evaluate",
    "Method": "tcmoa_calibration.evaluate",
    "evaluate_pairs": "tcmoa_calibration.evaluate",
}
"""Module of each name in `__all__` that is not a submodule."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name not in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
