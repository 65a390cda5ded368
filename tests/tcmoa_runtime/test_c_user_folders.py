"""libtcmoa and the Python runtime keep compiled models in the same private folder, and never in a bundle."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from c_library import LIBRARY, CFuser
from tcmoa_runtime import Fuser

pytest.importorskip("openvino", reason="openvino is not installed; `pip install 'tcmoa[openvino]'` runs this")
pytestmark = pytest.mark.skipif(
    not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built; `make cpp` builds it, and this runs"
)


@pytest.fixture
def user_cache(tmp_path, monkeypatch):
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tcmoa"


@pytest.fixture
def bundle(exported, tmp_path):
    return Path(shutil.copytree(exported("vif"), tmp_path / "vif"))


def random_pair(bundle):
    with Fuser.load(bundle, "onnxruntime") as fuser:
        height, width = fuser.size
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(2)]


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.blob")}


def test_python_and_c_share_the_cache(bundle, user_cache):
    pair = random_pair(bundle)
    with Fuser.load(bundle, "openvino") as fuser:
        expected = fuser(*pair)
    compiled = files_in(user_cache)
    assert len(compiled) == 1
    with CFuser(bundle) as c_fuser:
        np.testing.assert_array_equal(c_fuser(*pair), expected)
    assert files_in(user_cache) == compiled
    assert not (bundle / "engines").exists()


def test_c_does_not_use_a_folder_that_others_can_write_to(bundle, user_cache):
    user_cache.mkdir(parents=True)
    user_cache.chmod(0o777)
    with CFuser(bundle) as c_fuser:
        c_fuser(*random_pair(bundle))
    assert list(user_cache.iterdir()) == []
    assert not (bundle / "engines").exists()
