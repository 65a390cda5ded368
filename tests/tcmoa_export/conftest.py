"""Fixtures of the export tests."""

import pytest

from micro_model import scrambled
from one_thread import one_thread_per_session

__all__ = ["one_thread_per_session"]


@pytest.fixture(scope="session")
def micro():
    """Return a small model with random parameters, none of them neutral."""
    return scrambled()
