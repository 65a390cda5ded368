"""Searching a default prompt and writing the bundle that has it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcmoa_calibration.prompt.report import PromptSearchResult, no_gain_error, to_surface
from tcmoa_calibration.prompt.search import search_prompt
from tcmoa_calibration.prompt.surface import draw_surface
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import check_target, derive_bundle
from tcmoa_runtime.errors import NoPromptError
from tcmoa_runtime.images import check_writable, write_image
from tcmoa_runtime.new_folder import check_parent
from tcmoa_runtime.options.prompt_search import PromptSearchOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import JsonObject, OnSteps, ignore_steps


@dataclass(frozen=True)
class PromptCalibrationResult:
    """A new bundle, and the search that its default prompt comes from."""

    bundle: Bundle
    search: PromptSearchResult

    def to_json(self) -> JsonObject:
        """Return the record of bundle.json, every prompt that was tried, and the skipped pairs as a JSON object."""
        return {
            "bundle": str(self.bundle.path),
            "prompt_default": self.search.best.to_json(),
            "prompt_calibration": self.search.to_json(),
            "surface": [
                {**prompt.to_json(), "mean": round(mean, 9)} for prompt, mean in self.search.means.items()
            ],
            "skipped": self.search.pairs.skipped,
        }


def calibrate_prompt(
    bundle: Bundle | str | os.PathLike[str],
    pairs: Sequence[PairPaths],
    out: str | os.PathLike[str],
    options: PromptSearchOptions | None = None,
    *,
    surface: str | os.PathLike[str] | None = None,
    on_progress: OnSteps = ignore_steps,
) -> PromptCalibrationResult:
    """Search a default prompt and write a bundle with it.

    Args:
        bundle: The bundle to copy.
        pairs: Pairs of the task that the prompt is for.
        out: Folder of the new bundle.
        options: The objective, the ranges and the backend; None: the defaults.
        surface: Image file for the objective over alpha and beta; it is written even if no bundle is.
        on_progress: Called with the number of finished fusions and of all fusions.

    Raises:
        InputError: No prompt is better than the bundle's default on the held-out pairs, fewer than 4 pairs are
            usable, or `out` or `surface` cannot be written. No bundle is written.
        MissingError: The backend needs a package or device that is missing.
        BundleError: The bundle is damaged.
        NoPromptError: The network has no prompt.
    """
    options = PromptSearchOptions() if options is None else options
    target = Path(out)
    picture = None if surface is None else check_writable(surface)
    if picture is not None:
        check_parent(picture)
    check_target(target, overwrite=options.overwrite)
    source = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if not source.has_prompt:
        raise NoPromptError(source.path, remedy="Use the bundle of a TC-MoA model")
    search = search_prompt(source, pairs, options, on_progress=on_progress)
    if picture is not None:
        write_image(picture, draw_surface(to_surface(search)))
    if not search.is_better:
        raise no_gain_error(source, search, picture)
    changes = {"prompt_default": search.best.to_json(), "prompt_calibration": search.to_json()}
    written = derive_bundle(source, target, changes, overwrite=options.overwrite)
    return PromptCalibrationResult(written, search)
