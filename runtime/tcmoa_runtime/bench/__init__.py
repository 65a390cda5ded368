"""Measuring how fast the backends are, each in a process of its own."""
