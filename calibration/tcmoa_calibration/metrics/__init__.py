"""The metrics that image fusion papers report, by their definitions and as the published toolboxes compute them.

    from tcmoa_calibration import metrics

    metrics.qabf(x, y, fused)                              # one metric, profile "correct"
    metrics.evaluate(x, y, fused, names=["Qabf", "SSIM"])  # several, with shared intermediate results
    metrics.METRICS["Qcv"].higher_is_better                # False

x and y are the sources, A and B in formulas; F is the fused image. Every metric accepts uint8 or uint16, gray or RGB
(see `planes`), and a profile (see `registry`). Swapping x and y changes nothing. Every result is finite: where a
formula is undefined (0 / 0 on constant images), the metric's docstring says what is returned. Images that are too
small for a metric's windows raise InputError.
"""

from __future__ import annotations

from collections.abc import Iterable

from tcmoa_calibration.metrics.contrast import ag, ei, sd, sf, variance
from tcmoa_calibration.metrics.exposure import mef_ssim, ms_ssim
from tcmoa_calibration.metrics.feature import fmi
from tcmoa_calibration.metrics.fidelity import cc, mse, psnr, rmse, scd
from tcmoa_calibration.metrics.gradient import qabf, qg
from tcmoa_calibration.metrics.information import ce, en, mi, nmi, qncie
from tcmoa_calibration.metrics.information_fidelity import vif, viff
from tcmoa_calibration.metrics.perceptual import qcb, qcv
from tcmoa_calibration.metrics.phase import qp
from tcmoa_calibration.metrics.planes import Triple
from tcmoa_calibration.metrics.registry import METRICS, Metric, check_profile
from tcmoa_calibration.metrics.structure import qc, qe, qs, qw, ssim
from tcmoa_runtime.options.evaluate import PROFILES, MetricName, Profile
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.typing import ImageLike

__all__ = [
    "METRICS",
    "PROFILES",
    "Metric",
    "MetricName",
    "Profile",
    "ag",
    "cc",
    "ce",
    "ei",
    "en",
    "evaluate",
    "fmi",
    "mef_ssim",
    "mi",
    "ms_ssim",
    "mse",
    "nmi",
    "psnr",
    "qabf",
    "qc",
    "qcb",
    "qcv",
    "qe",
    "qg",
    "qncie",
    "qp",
    "qs",
    "qw",
    "rmse",
    "scd",
    "sd",
    "sf",
    "ssim",
    "variance",
    "vif",
    "viff",
]


def evaluate(
    x: ImageLike,
    y: ImageLike,
    fused: ImageLike,
    profile: Profile = "correct",
    names: MetricName | Iterable[MetricName] | None = None,
) -> dict[str, float]:
    """Compute several metrics of a fused image; gradients, histograms and local moments are computed once.

    Args:
        x: First source, uint8 or uint16, [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4] (alpha is dropped).
        y: Second source, of the same height and width.
        fused: Fused image, of the same height and width.
        profile: How the metrics are computed, see `tcmoa_calibration.metrics.registry`.
        names: One or several names of METRICS; all of them if None.

    Returns:
        Metrics by name, in the order of `names`.

    Raises:
        InputError: An image has another dtype or shape, the sizes differ, a side is shorter than a metric's
            `min_side`, or a name or the profile is unknown.
    """
    check_profile(profile)
    chosen = list(METRICS) if names is None else [names] if isinstance(names, str) else list(names)
    for name in chosen:
        check_choice("metric", name, METRICS)
    triple = Triple(x, y, fused)
    return {name: METRICS[name].compute(triple, profile) for name in chosen}
