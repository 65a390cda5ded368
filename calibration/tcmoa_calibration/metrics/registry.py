"""How a formula on planes becomes a public metric: profiles, color, and a check for NaN.

Profiles:

- `correct`: the definition of the metric's paper, on luma, without the deviations of any toolbox.
- `as-published`: the numbers that fusion papers print, TC-MoA's among them: each metric as in the toolbox that its
  published values come from (`Metric.published`), with the toolbox's deviations.
- `vifb`, `mefb`, `tang`: one toolbox throughout (VIFB, Zhang 2020; MEFB, Zhang 2021; Tang's
  Evaluation-for-Image-Fusion, 2022), to compare with that toolbox's own tables. A metric that the toolbox computes by
  its definition is as in `correct`, except for color.

Profiles differ by several times on the same image (PSNR 16 or 58 dB, SD 42 or 9.8): always state the profile.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from tcmoa_calibration.metrics.planes import Planes, Triple
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.options.evaluate import PROFILES, MetricName, Profile
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.typing import ImageLike

Convention: TypeAlias = Literal["correct", "vifb", "mefb", "tang"]
"""How one metric is computed: a profile other than `as-published`."""

Formula: TypeAlias = Callable[[Planes, Convention], float]

_ARGUMENTS: Final = """

Args:
    x: First source, uint8 or uint16, [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4] (alpha is dropped).
    y: Second source, of the same height and width.
    fused: Fused image, of the same height and width.
    profile: How the metric is computed, see `tcmoa_calibration.metrics.registry`.

Returns:
    A finite number.

Raises:
    InputError: An image has another dtype or shape, the sizes differ, a side is shorter than {min_side} px, or the
        profile is unknown.
"""


class MetricFunction(Protocol):
    """The signature of every metric."""

    def __call__(self, x: ImageLike, y: ImageLike, fused: ImageLike, profile: Profile = "correct") -> float:
        """Compute the metric of `fused` and its sources."""


@dataclass(frozen=True)
class Metric:
    """A metric and its properties.

    Attributes:
        name: Name as papers write it.
        function: The public function, (x, y, fused, profile) -> float.
        higher_is_better: Direction.
        needs: Images that the metric depends on, ("fused",) or ("x", "y", "fused").
        min_side: Shortest side of an image in pixels.
        published: Convention that the profile `as-published` stands for.
        formula: The formula on planes.
        side_by_side_in: Conventions in which R, G and B side by side are one image: a MATLAB loop over
            `[rows, columns] = size(image)` treats color like this.
    """

    name: MetricName
    function: MetricFunction
    higher_is_better: bool
    needs: tuple[str, ...]
    min_side: int
    published: Convention
    formula: Formula
    side_by_side_in: tuple[Convention, ...] = ()

    def compute(self, triple: Triple, profile: Profile = "correct") -> float:
        """Compute the metric of checked images, reusing results that other metrics left in `triple`.

        Raises:
            InputError: The images are too small, or the profile is unknown.
            TcmoaError: The result is not finite.
        """
        check_profile(profile)
        if triple.min_side < self.min_side:
            raise InputError(
                f"{triple.min_side} px on the shorter side; expected at least {self.min_side} px",
                subject=self.name,
                remedy="Leave the metric out, or use larger images",
            )
        convention: Convention = self.published if profile == "as-published" else profile
        if convention in self.side_by_side_in:
            views = triple.side_by_side()
        else:
            views = triple.channels() if convention in ("vifb", "mefb") else triple.luma()
        value = float(sum(self.formula(planes, convention) for planes in views) / len(views))
        if not math.isfinite(value):
            raise TcmoaError(
                f"internal error: the result is {value}; expected a finite number",
                subject=self.name,
                remedy="Report the images that cause it",
            )
        return value


METRICS: Final[dict[str, Metric]] = {}
"""Every metric by its name, grouped by family."""


def check_profile(profile: str) -> None:
    """Raise InputError for an unknown profile."""
    check_choice("profile", profile, PROFILES)


def metric(
    name: MetricName,
    *,
    higher_is_better: bool = True,
    needs_sources: bool = True,
    min_side: int = 1,
    published: Convention = "correct",
    side_by_side_in: tuple[Convention, ...] = (),
) -> Callable[[Formula], MetricFunction]:
    """Decorate a formula: register it in METRICS and return its public function."""

    def register(formula: Formula) -> MetricFunction:
        def public(x: ImageLike, y: ImageLike, fused: ImageLike, profile: Profile = "correct") -> float:
            check_profile(profile)
            return METRICS[name].compute(Triple(x, y, fused), profile)

        for attribute in ("__name__", "__qualname__", "__module__"):
            setattr(public, attribute, getattr(formula, attribute))
        public.__doc__ = inspect.cleandoc(formula.__doc__ or "") + _ARGUMENTS.format(min_side=min_side)
        needs = ("x", "y", "fused") if needs_sources else ("fused",)
        METRICS[name] = Metric(
            name, public, higher_is_better, needs, min_side, published, formula, side_by_side_in
        )
        return public

    return register
