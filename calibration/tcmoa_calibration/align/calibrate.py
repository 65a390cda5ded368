"""Estimating an alignment and writing the bundle that applies it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tcmoa_calibration.align.estimate import AlignmentEstimate, estimate_alignment
from tcmoa_calibration.align.preview import draw_preview
from tcmoa_calibration.sample_pairs import read_sample_pairs
from tcmoa_runtime.alignment import MANIFEST_KEY
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import check_target, derive_bundle
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import check_writable, write_image
from tcmoa_runtime.log import log_step
from tcmoa_runtime.options.align import MIN_PAIRS, AlignOptions
from tcmoa_runtime.pairs import PairPaths
from tcmoa_runtime.typing import JsonObject, OnMessage


@dataclass(frozen=True)
class AlignmentResult:
    """A bundle with an alignment, and the estimate that it rests on.

    Attributes:
        bundle: The new bundle.
        estimate: The alignment and how certain it is.
        skipped: `name: reason` of each pair that was not used.
    """

    bundle: Bundle
    estimate: AlignmentEstimate
    skipped: list[str]

    def to_json(self) -> JsonObject:
        """Return the result as a JSON object."""
        return {
            "bundle": str(self.bundle.path),
            **self.estimate.alignment.to_json(),
            "shift_px": self.estimate.shift_px,
            "already_aligned": self.estimate.already_aligned,
            "scores": self.estimate.scores,
            "skipped": self.skipped,
        }


def calibrate_alignment(
    bundle: Bundle | str | os.PathLike[str],
    pairs: Sequence[PairPaths],
    out: str | os.PathLike[str],
    options: AlignOptions | None = None,
    *,
    preview: str | os.PathLike[str] | None = None,
    on_message: OnMessage = log_step,
) -> AlignmentResult:
    """Estimate how one source is displaced from the other and write a bundle that corrects it.

    Each image is resized to the bundle's frame by itself, as the Fuser does: the cameras may differ in resolution.

    Args:
        bundle: The bundle to copy.
        pairs: Images that both cameras took at the same time.
        out: Folder of the new bundle.
        options: Which source is moved, by which motion model, and which pairs are used; None: the defaults.
        preview: Image file for the edges of both sources before and after.
        on_message: Called with a line of text for each step.

    Raises:
        InputError: The pairs do not determine the alignment well enough, the bundle has an alignment and
            `options.replace` is not set, or a file cannot be read or written. No bundle is written.
        BundleError: The bundle is damaged.
    """
    options = AlignOptions() if options is None else options
    check_target(Path(out), overwrite=options.overwrite)
    if preview is not None:
        check_writable(preview)
    source = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if source.alignment is not None and not options.replace:
        raise InputError(
            f"the bundle has an alignment of {source.alignment.source}; expected a bundle without one",
            subject=source.path,
            remedy="Replace the alignment with {replace}, or use the bundle that it was calibrated from",
            settings={"replace": True},
        )
    on_message("reading pairs")
    samples, skipped = read_sample_pairs(
        pairs,
        source.size,
        max_pairs=options.max_pairs,
        min_pairs=MIN_PAIRS,
        seed=options.seed,
        same_size=False,
    )
    estimate = estimate_alignment(samples, options, on_message=on_message)
    if preview is not None:
        write_image(preview, draw_preview(samples, estimate))
    changes = {MANIFEST_KEY: estimate.alignment.to_json()}
    return AlignmentResult(
        derive_bundle(source, out, changes, overwrite=options.overwrite), estimate, skipped
    )
