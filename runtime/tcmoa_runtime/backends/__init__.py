"""Backends: each runs the graph of a bundle with one inference library, see `backends.base.Backend`."""
