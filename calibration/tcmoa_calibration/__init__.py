"""Calibration and image metrics: `from tcmoa_calibration import metrics`; the rest is being built."""
