"""Images to measure: published triples, and parts of photographs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from one_thread import one_thread_per_session

__all__ = ["one_thread_per_session"]

SHARED = Path(__file__).resolve().parents[3] / "shared"

Image = NDArray[np.uint8]


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder of the triples with values published by VIFB and Tang; tests that need it are skipped without it."""
    folder = SHARED / "reference" / "metrics"
    if not folder.is_dir():
        pytest.skip("../shared/reference/metrics is absent; place the project beside it to run this")
    return folder


@pytest.fixture(scope="session")
def peers() -> dict[str, Any]:
    """Metrics of 21 methods on multi-exposure pairs, published by MEFB; skips the test if they are absent."""
    path = SHARED / "board" / "mef" / "peers.json"
    if not path.is_file():
        pytest.skip("../shared/board is absent; place the project beside it to run this")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="session")
def photograph() -> Image:
    """A photograph [128, 144] with edges, texture and flat areas."""
    return np.ascontiguousarray(data.camera()[100:356:2, 150:438:2])


@pytest.fixture(scope="session")
def other_photograph() -> Image:
    """A photograph [128, 144] of another scene."""
    return np.ascontiguousarray(data.coins()[20:148, 30:174])
