"""Fixtures of the training side's tests."""

import numpy as np
import pytest
import skimage.data
import torch

from micro_model import scrambled


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
