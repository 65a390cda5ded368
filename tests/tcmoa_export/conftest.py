"""Fixtures of the export tests."""

import pytest

from micro_model import scrambled


@pytest.fixture(scope="session")
def micro():
    """A small model with random parameters, none of them neutral."""
    return scrambled()
