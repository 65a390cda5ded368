"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no bug; the fixtures that properties use are read only. In CI the same examples are tried each
# time, so that a commit is judged by itself; everywhere else new ones are.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README's tests first: they take longest, and one process of several has to do them all."""
    items.sort(key=lambda item: item.path.name != "test_documents.py")


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the authors' reference outputs; tests that need it skip where it is absent."""
    folder = SHARED / "reference" / "golden"
    if not folder.is_dir():
        pytest.skip("../shared/reference/golden is absent; place the project beside it to run this")
    return folder


@pytest.fixture(scope="session")
def val_pairs() -> Path:
    """Folder of real pairs by task (vif, mef, mff); tests that need it skip where it is absent."""
    folder = SHARED / "data" / "val"
    if not folder.is_dir():
        pytest.skip("../shared/data/val is absent; place the project beside it to run this")
    return folder
