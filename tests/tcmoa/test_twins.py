"""Training against flicker and for steering: what twins and steered steps show the model, and what they measure."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tcmoa.model import to_luma
from tcmoa.twins import EXCESS, PUMPING, TWIN_TERMS, make_twins, steer, twin_terms

SIZE = (32, 48)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    x, y = torch.rand(2, 4, 3, *SIZE) * 0.8 + 0.1
    return x, y, torch.rand(4, 1, *SIZE)


def test_twins_show_the_same_crop_with_other_noise(batch):
    x, y, target = make_twins(batch)
    for made, given_ in ((x, batch[0]), (y, batch[1])):
        for half in made.chunk(2):
            difference = 255 * (half - given_[:2])
            assert 0.2 < difference.std() < 4
        assert not torch.equal(*made.chunk(2))
    assert all(torch.equal(half, batch[2][:2]) for half in target.chunk(2))


def test_noise_keeps_images_gray_and_within_range():
    gray = torch.ones(2, 1, *SIZE).expand(-1, 3, -1, -1)
    x, _ = make_twins((gray, gray))
    assert torch.equal(x[:, 0], x[:, 1])
    assert x.min() < 1 == x.max()


def test_a_result_that_follows_a_source_does_not_flicker(batch):
    x, y, _ = make_twins(batch)
    for fused in (x, y, (x + y) / 2):
        assert all(term < 1e-4 for term in twin_terms(x, y, fused).values())


def test_a_change_of_a_whole_block_is_pumping_and_a_change_of_pixels_is_not(batch):
    x = batch[0][:2].repeat(2, 1, 1, 1)
    step = torch.zeros(4, 1, *SIZE)
    step[:2] = 0.01
    terms = twin_terms(x, x, x + step)
    assert terms[EXCESS] == pytest.approx(TWIN_TERMS[EXCESS] * 0.01, rel=1e-3)
    assert terms[PUMPING] == pytest.approx(TWIN_TERMS[PUMPING] * 0.01, rel=1e-3)
    checkered = torch.zeros(4, 1, *SIZE)
    checkered[:2, :, :, ::2], checkered[:2, :, :, 1::2] = 0.01, -0.01
    assert twin_terms(x, x, x + checkered)[PUMPING] < 1e-3


@given(seed=st.integers(0, 1000))
def test_the_target_moves_towards_the_source_that_the_shift_favors(seed):
    torch.manual_seed(seed)
    x, y = torch.rand(2, 1, 3, 8, 8)
    target = torch.full((1, 1, 8, 8), 0.5)
    shift, moved = steer(x, y, target)
    share = min(abs(shift) / 0.6, 1.0)
    favored = to_luma(x if shift > 0 else y)
    assert abs(shift) <= 0.7
    torch.testing.assert_close(moved, (1 - share) * target + share * favored)
