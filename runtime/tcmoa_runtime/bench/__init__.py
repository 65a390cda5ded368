"""Measuring the speed of the backends, each in a process of its own."""
