"""Fixtures of the tests of fleets."""

import pytest

from fleet_pieces import write_sources


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Folder with x.mkv and y.mkv of 130x100, which play for four minutes."""
    return write_sources(tmp_path_factory.mktemp("fleet-sources"))


@pytest.fixture(scope="session")
def short_sources(tmp_path_factory):
    """Folder with x.mkv and y.mkv of 130x100 and half a second."""
    return write_sources(tmp_path_factory.mktemp("short-sources"), num_frames=25, interval_ms=20)
