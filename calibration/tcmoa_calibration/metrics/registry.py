"""How a formula on grey planes becomes a public metric: profiles, colour, and the guard against silent NaNs.

Profiles:

- `correct`: the definition of the metric's paper, on luma, without the quirks of any toolbox.
- `as-published`: what fusion papers print, TC-MoA's among them: each metric by the toolbox that its published
  figures come from (`Metric.published`), quirks included.
- `vifb`, `mefb`, `tang`: one toolbox throughout (VIFB, Zhang 2020; MEFB, Zhang 2021; Tang's Evaluation-for-Image-
  Fusion as of 2022), to hold a result against that toolbox's own tables. A metric that the toolbox does not do its
  own way is as in `correct`, but for the colour.

Profiles differ by several times on one image (PSNR 16 or 58, SD 42 or 9.8): a figure without its profile is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast, get_args

from tcmoa_calibration.metrics.frames import Planes, Triple
from tcmoa_runtime.errors import InputError, TcmoaError

Convention = Literal["correct", "vifb", "mefb", "tang"]
"""How one metric is computed."""

Profile = Literal["correct", "as-published", "vifb", "mefb", "tang"]
"""How a table of metrics is computed."""

PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)

Core = Callable[[Planes, Convention], float]


class MetricFunction(Protocol):
    """What a public metric is."""

    def __call__(self, x: Any, y: Any, fused: Any, profile: Profile = "correct") -> float:
        """The metric of `fused` against its sources."""


@dataclass(frozen=True)
class Metric:
    """One entry of METRICS."""

    name: str
    """As the papers write it."""
    function: MetricFunction
    """(x, y, fused, profile="correct") -> float."""
    higher_is_better: bool
    needs: tuple[str, ...]
    """The images that it looks at: ("fused",) or ("x", "y", "fused")."""
    min_side: int
    """Pixels; smaller images are refused by InputError."""
    published: Convention
    """What profile `as-published` means for it."""
    core: Core
    abreast_in: tuple[Convention, ...] = ()
    """Where R, G and B side by side make one image, as a MATLAB loop over [rows, columns] = size(image) sees colour."""

    def of(self, triple: Triple, profile: Profile = "correct") -> float:
        """The metric of checked images, sharing what was computed from them before."""
        if triple.shortest_side < self.min_side:
            raise InputError(
                f"{self.name} needs images of at least {self.min_side} pixels a side:"
                f" these have {triple.shortest_side}; leave it out by names=..."
            )
        convention = self.published if profile == "as-published" else check_profile(profile)
        if convention in self.abreast_in:
            every = triple.abreast()
        else:
            every = triple.channels() if convention in ("vifb", "mefb") else triple.luma()
        value = float(sum(self.core(planes, convention) for planes in every) / len(every))
        if not math.isfinite(value):
            raise TcmoaError(
                f"{self.name} came out as {value}: a fault of this program; please report the images"
            )
        return value


METRICS: Final[dict[str, Metric]] = {}
"""Every metric by its name in the papers, in the order of the families."""


def check_profile(profile: str) -> Convention:
    """`profile`, or InputError where there is none of that name."""
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r} is not known: expected one of {', '.join(PROFILES)}")
    return cast("Convention", profile)


def metric(
    name: str,
    *,
    higher: bool = True,
    sources: bool = True,
    min_side: int = 1,
    published: Convention = "correct",
    abreast_in: tuple[Convention, ...] = (),
) -> Callable[[Core], MetricFunction]:
    """Enter a formula `(planes, convention) -> float` into METRICS and return its public function."""

    def enter(core: Core) -> MetricFunction:
        def public(x: Any, y: Any, fused: Any, profile: Profile = "correct") -> float:
            check_profile(profile)
            return METRICS[name].of(Triple(x, y, fused), profile)

        for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(public, attribute, getattr(core, attribute))
        needs = ("x", "y", "fused") if sources else ("fused",)
        METRICS[name] = Metric(name, public, higher, needs, min_side, published, core, abreast_in)
        return public

    return enter
