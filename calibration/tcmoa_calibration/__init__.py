"""Calibration and image metrics; its first parts arrive with the image-quality work."""
