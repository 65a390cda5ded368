"""Bundles and tensors for tests of model repositories."""

from tcmoa_runtime import Bundle
from tcmoa_runtime.alignment import MANIFEST_KEY, Alignment
from tcmoa_runtime.bundle_write import derive_bundle

MATRIX = ((1.02, 0.03, -4.5), (-0.02, 0.99, 3.25), (1e-4, -5e-5, 1.0))


def write_aligned(bundle, out):
    """Copy a bundle, with an alignment of y; return the path."""
    found = Alignment(
        "y", MATRIX, model="homography", residual_px=0.25, score_before=0.1, score_after=0.4, pairs=12, seed=0
    )
    derive_bundle(Bundle.open(bundle), out, {MANIFEST_KEY: found.to_json()})
    return out
