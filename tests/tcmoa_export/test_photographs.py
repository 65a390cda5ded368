"""Pairs made from photographs."""

import numpy as np
import pytest

from tcmoa_export.photographs import PHOTOGRAPHS, make_pair, photograph
from tcmoa_runtime.errors import InputError


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("size", [(48, 64), (700, 500), (1, 1)])
def test_a_photograph_is_cropped_to_any_size(name, size):
    image = photograph(name, *size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert size == (1, 1) or image.std() > 10


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_pairs_are_two_different_images_and_deterministic(task):
    a, b = make_pair(task, "coffee", (96, 128), seed=3), make_pair(task, "coffee", (96, 128), seed=3)
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.y, b.y)
    assert np.abs(a.x.astype(int) - a.y).mean() > 1
    assert ("SYNTHETIC" in a.origin) == (task == "vif")


def test_exposures_are_brighter_and_darker_than_the_photograph():
    pair, photo = make_pair("mef", "coffee", (96, 128)), photograph("coffee", 96, 128)
    assert pair.x.mean() > photo.mean() > pair.y.mean()


def test_an_unknown_photograph_is_refused():
    with pytest.raises(InputError, match="expected one of astronaut"):
        photograph("mona lisa", 10, 10)
