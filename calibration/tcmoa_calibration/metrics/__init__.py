"""The metrics that image-fusion papers print, each as its paper defines it and as their toolboxes compute it.

    from tcmoa_calibration import metrics

    metrics.qabf(x, y, fused)                              # one, profile "correct"
    metrics.evaluate(x, y, fused, names=["Qabf", "SSIM"])  # several, what they share computed once
    metrics.METRICS["Qcv"].higher_is_better                # False

x and y are the sources, called A and B in formulas; F is the fused image. All take uint8 or uint16, grey or RGB
(`frames`), and a profile (`registry`). The order of x and y does not matter. Every figure is finite: what a formula
leaves open (0 / 0 on constant images) is settled in the metric's docstring, and images too small for its windows end
in InputError.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tcmoa_calibration.metrics.contrast import ag, ei, sd, sf, variance
from tcmoa_calibration.metrics.exposure import mef_ssim, ms_ssim
from tcmoa_calibration.metrics.feature import fmi
from tcmoa_calibration.metrics.fidelity import cc, mse, psnr, rmse, scd
from tcmoa_calibration.metrics.frames import Triple
from tcmoa_calibration.metrics.gradient import qabf, qg
from tcmoa_calibration.metrics.information import ce, en, mi, nmi, qncie
from tcmoa_calibration.metrics.information_fidelity import vif, viff
from tcmoa_calibration.metrics.perceptual import qcb, qcv
from tcmoa_calibration.metrics.phase import qp
from tcmoa_calibration.metrics.registry import METRICS, PROFILES, Metric, Profile, check_profile
from tcmoa_calibration.metrics.structure import qc, qe, qs, qw, ssim
from tcmoa_runtime.errors import InputError

__all__ = [
    "METRICS",
    "PROFILES",
    "Metric",
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
    x: Any, y: Any, fused: Any, profile: Profile = "correct", names: Iterable[str] | None = None
) -> dict[str, float]:
    """Metrics of one fused image by name, all of METRICS or those of `names`, in the order asked.

    Gradients, histograms and local moments are computed once for all that need them. Raises InputError for images
    that do not fit together, a name or a profile that is not known, and images smaller than a metric's `min_side`.
    """
    check_profile(profile)
    wanted = list(METRICS) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not known: expected some of {', '.join(METRICS)}")
    triple = Triple(x, y, fused)
    return {name: METRICS[name].of(triple, profile) for name in wanted}
