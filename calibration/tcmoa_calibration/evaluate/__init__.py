"""Fusion methods side by side on real pairs: metrics with confidence intervals, and a report with pictures.

    from tcmoa_calibration import EvaluateOptions, Method, evaluate_pairs

    evaluation = evaluate_pairs(
        "pairs",
        [Method.folder("mine"), Method.bundle("night-640x480")],
        EvaluateOptions(baselines=("average",), metrics=("Qabf", "VIF", "SSIM", "MI")),
        out="evaluation",
    )
    evaluation.methods[0].mean("Qabf")  # Interval(mean, half_width, n)
    evaluation.differences["Qabf"]      # of each other method to the first, paired over images

`tcmoa evaluate` is the command.
"""

from tcmoa_calibration.evaluate.confidence import Interval, difference_interval, mean_interval
from tcmoa_calibration.evaluate.methods import Method
from tcmoa_calibration.evaluate.results import Evaluation, Failure, MethodResult
from tcmoa_calibration.evaluate.run import evaluate_pairs
from tcmoa_runtime.options.evaluate import EvaluateOptions

__all__ = [
    "EvaluateOptions",
    "Evaluation",
    "Failure",
    "Interval",
    "Method",
    "MethodResult",
    "difference_interval",
    "evaluate_pairs",
    "mean_interval",
]
