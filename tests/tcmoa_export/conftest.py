"""Fixtures of the export tests."""

import pytest

from micro_model import scrambled


@pytest.fixture(scope="session")
def micro():
    """Return a small model with random parameters, none of them neutral."""
    return scrambled()
