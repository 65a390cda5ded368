"""Fleets: many streams of camera pairs as actors of Ray, described by one file."""
