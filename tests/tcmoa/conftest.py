"""Fixtures of the training side's tests."""

import cv2
import numpy as np
import pytest
import skimage.data
import torch

import tcmoa.config
import tcmoa.initial_model
from micro_model import scrambled
from tcmoa.synthetic_pairs import exposure_pair, focus_pair, smooth_mask, synthetic_infrared
from training_runs import SMALL


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small lose more by waiting for a second thread than they gain by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def micro():
    """A small model with random parameters, none of them neutral: 2 + 1 TC-MoAs; leave it as it is."""
    return scrambled()


@pytest.fixture(scope="session")
def photo():
    """A photograph, uint8 [224, 224, 3]: a face, hair, a helmet."""
    return np.ascontiguousarray(skimage.data.astronaut()[:224, 128:352])


@pytest.fixture(scope="session")
def coffee():
    """Another photograph, uint8 [224, 224, 3]."""
    return np.ascontiguousarray(skimage.data.coffee()[100:324, 150:374])


@pytest.fixture(scope="session")
def pair(photo, coffee):
    """Two different images [1, 3, 112, 112] in 0..1."""
    return tuple(
        torch.from_numpy(image[::2, ::2].copy()).permute(2, 0, 1)[None].float() / 255
        for image in (photo, coffee)
    )


@pytest.fixture(scope="module")
def small_presets():
    """`tiny` is a model that trains three rounds a second."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tcmoa.initial_model, tcmoa.config):
            patch.setattr(module, "PRESETS", {"tiny": SMALL})
        yield


@pytest.fixture(scope="session")
def pairs(tmp_path_factory, photo, coffee):
    """A folder with a pair of each task."""
    folder = tmp_path_factory.mktemp("pairs")
    scene, other = (image[:128, :144].astype(np.float32) / 255 for image in (photo, coffee))
    made = {
        "vif": (scene, synthetic_infrared(scene)),
        "mef": exposure_pair(other, 2.0),
        "mff": focus_pair(other, smooth_mask(128, 144, np.random.default_rng(0)), 2.0),
    }
    for task, sources in made.items():
        (folder / task).mkdir()
        for name, image in zip("xy", sources, strict=True):
            cv2.imwrite(
                str(folder / task / f"p_{name}.png"), np.round(image[..., ::-1] * 255).astype(np.uint8)
            )
    return folder
