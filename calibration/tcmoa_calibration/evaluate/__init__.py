"""Fusion methods side by side on real pairs: figures with their confidence, and a page to look at.

    from tcmoa_calibration.evaluate import Contestant, evaluate_pairs

    evaluation = evaluate_pairs(
        "pairs",
        contestants=[Contestant.folder("mine"), Contestant.bundle("night-640x480"), Contestant.baseline("average")],
        metrics=["Qabf", "VIF", "SSIM", "MI"],
        out="evaluation",
    )
    evaluation.contestants[0].mean("Qabf")  # Interval(mean, half_width, n)
    evaluation.differences["Qabf"]          # of each other contestant to the first, paired over images

`tcmoa evaluate` is the same from the command line.
"""

from tcmoa_calibration.evaluate.confidence import Interval, interval, paired
from tcmoa_calibration.evaluate.contestants import DEFAULT_BASELINES, Contestant, parse_baselines, split_label
from tcmoa_calibration.evaluate.results import ContestantResult, Evaluation, Failure
from tcmoa_calibration.evaluate.run import evaluate_pairs

__all__ = [
    "DEFAULT_BASELINES",
    "Contestant",
    "ContestantResult",
    "Evaluation",
    "Failure",
    "Interval",
    "evaluate_pairs",
    "interval",
    "paired",
    "parse_baselines",
    "split_label",
]
