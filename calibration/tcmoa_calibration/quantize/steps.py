"""Counting the steps of a calibration, whose number becomes known on the way."""

from __future__ import annotations

from tcmoa_runtime.typing import OnSteps


class StepCounter:
    """Reports finished steps and the number of steps that are known so far."""

    def __init__(self, on_progress: OnSteps) -> None:
        self._on_progress, self._done, self._total = on_progress, 0, 0

    def expect(self, count: int) -> None:
        """Add steps that are to come."""
        self._total += count

    def advance(self) -> None:
        """Report a finished step."""
        self._done += 1
        self._on_progress(self._done, max(self._total, self._done))
