"""Bundles that only the python backend fuses, or that have no prompt."""

import pytest

from repository_pieces import write_aligned
from wrapped_pieces import write_two_layers


@pytest.fixture(scope="session")
def aligned(exported, tmp_path_factory):
    """Path of a bundle that aligns y."""
    return write_aligned(exported("bgr"), tmp_path_factory.mktemp("aligned") / "aligned")


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory):
    """Path of a wrapped bundle without prompts, whose network stretches a picture by its own extremes."""
    return write_two_layers(tmp_path_factory.mktemp("wrapped") / "two-layers", stretches=1)
