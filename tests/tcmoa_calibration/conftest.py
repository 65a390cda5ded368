"""Images to measure: the published triples, and small ones that are made here."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

SHARED = Path(__file__).resolve().parents[3] / "shared"

Image = NDArray[np.uint8]


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder of the triples that VIFB and Tang printed values for; tests that need it skip where it is absent."""
    folder = SHARED / "reference" / "metrics"
    if not folder.is_dir():
        pytest.skip("../shared/reference/metrics is absent; place the project beside it to run this")
    return folder


@pytest.fixture(scope="session")
def photograph() -> Image:
    """[128, 144], a photograph with edges, texture and flat places."""
    return np.ascontiguousarray(data.camera()[100:356:2, 150:438:2])


@pytest.fixture(scope="session")
def other_photograph() -> Image:
    """[128, 144], of another scene."""
    return np.ascontiguousarray(data.coins()[20:148, 30:174])
