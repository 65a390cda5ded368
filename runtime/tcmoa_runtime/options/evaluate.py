"""Choices of `tcmoa evaluate`, and the names of metrics and baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, get_args

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option, check_choices

Profile: TypeAlias = Literal["correct", "as-published", "vifb", "mefb", "tang"]
"""How the metrics are computed: by their papers' definitions, or as a published toolbox does."""

MetricName: TypeAlias = Literal[
    "SD", "Variance", "AG", "EI", "SF", "SSIM", "Qs", "Qw", "Qe", "Qc", "MEF-SSIM", "MS-SSIM", "FMI", "PSNR", "MSE",
    "RMSE", "CC", "SCD", "Qabf", "Qg", "EN", "MI", "NMI", "Qncie", "CE", "VIF", "VIFF", "Qcb", "Qcv", "Qp",
]  # fmt: skip
"""A metric, spelled as in the papers."""

BaselineName: TypeAlias = Literal[
    "average", "maximum", "laplacian", "mertens", "patches", "activity", "exposure", "focus"
]
"""A classical fusion method."""

METRIC_NAMES: Final[tuple[MetricName, ...]] = get_args(MetricName)
BASELINE_NAMES: Final[tuple[BaselineName, ...]] = get_args(BaselineName)
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)
DEFAULT_BASELINES: Final[tuple[BaselineName, ...]] = ("average", "maximum", "laplacian", "mertens")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How methods are evaluated: the baselines beside them, the metrics, and how the work is done."""

    baselines: Annotated[
        tuple[BaselineName, ...],
        Option(
            f"Classical methods to compare with: some of {', '.join(BASELINE_NAMES)}, or `all`, or `none`.",
            group="Methods",
        ),
    ] = DEFAULT_BASELINES
    metrics: Annotated[
        tuple[MetricName, ...] | None,
        Option(
            f"Metrics to compute, all if not given: some of {', '.join(METRIC_NAMES)}.",
            group="Metrics",
            metavar="Qabf,VIF,...",
        ),
    ] = None
    profile: Annotated[
        Profile,
        Option(
            "How metrics are computed: `correct` by their papers' definitions, `as-published` as most fusion papers "
            "print them, or throughout as the toolbox of VIFB, MEFB or Tang does.",
            group="Metrics",
        ),
    ] = "correct"
    video: Annotated[
        bool, Option("Treat the pairs as the frames of one clip, and measure flicker too.", group="Metrics")
    ] = False
    board: Annotated[
        Path | None,
        Option(
            "Folder of a board: peers.json with the metrics of published methods on its pairs, among which each method "
            "is ranked. It names the metrics, the profile, and the pairs if none are given.",
            group="Metrics",
            metavar="DIR",
        ),
    ] = None
    speed: Annotated[
        bool,
        Option("Measure time and memory too, if there are several bundles.", group="Metrics"),
    ] = True
    fresh: Annotated[
        bool, Option("Discard the results of earlier runs in the output folder.", group="Output")
    ] = False
    jobs: Annotated[int | None, Option("Number of processes; one for each core if not given.")] = None

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        if self.metrics == ():
            raise InputError(f"no metrics; expected some of {', '.join(METRIC_NAMES)}", subject="metrics")
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"{self.jobs}; expected at least 1", subject="jobs")
