"""Bringing the two sources of a pair to one frame, by the alignment of the bundle that is evaluated.

A bundle that aligns its sources fuses them in the frame of one of them. Metrics compare its image with the sources as
it aligned them, and the other methods get these too, so that all are measured on the same pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tcmoa_calibration.evaluate.methods import Method
from tcmoa_runtime.alignment import Alignment, Warp
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import X
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.typing import Frame, FrameSize


@dataclass(frozen=True)
class Registration:
    """An alignment, and the size (height, width) of the bundle's frame that its matrix is for."""

    alignment: Alignment
    size: FrameSize

    def __call__(self, x: Frame, y: Frame) -> tuple[Frame, Frame]:
        """Return both sources, uint8 [H, W] or [H, W, 3], in the size of x and aligned, as the Fuser does."""
        size = x.shape[0], x.shape[1]
        if y.shape[:2] != size:
            y = resize_frame(y, size)
        warp = Warp(self.alignment.matrix_at(self.size, size), size)
        return (warp(x), y) if self.alignment.source == X else (x, warp(y))

    @property
    def key(self) -> str:
        """Hexadecimal SHA-256 over what decides the registered pixels."""
        text = json.dumps([self.alignment.source, self.alignment.rows, self.size])
        return hashlib.sha256(text.encode()).hexdigest()


def find_registration(methods: Sequence[Method]) -> Registration | None:
    """Return the registration of the bundles among the methods; None if none aligns its sources.

    Raises:
        InputError: A bundle cannot be read, or two bundles align their sources differently.
    """
    found: tuple[Method, Registration] | None = None
    for method in methods:
        if method.kind != "bundle":
            continue
        bundle = Bundle.open(method.source)
        if bundle.alignment is None:
            continue
        registration = Registration(bundle.alignment, bundle.size)
        if found is not None and registration.key != found[1].key:
            raise InputError(
                f"aligns the sources otherwise than {found[0].source}; expected one alignment in an evaluation",
                subject=method.source,
                remedy="Evaluate the two bundles one after the other",
            )
        found = method, registration
    return None if found is None else found[1]
