"""Sample pairs of any size become what the graph will see: tiles, padded or resized frames, aligned."""

from types import SimpleNamespace

import numpy as np
import pytest

from evaluation_pieces import scene, write
from tcmoa_calibration.sample_fit import SampleFit, read_fitted_split
from tcmoa_calibration.sample_pairs import SamplePair, count_samples
from tcmoa_runtime import InputError
from tcmoa_runtime.alignment import Alignment, Warp
from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.pairs import find_pairs

OWN = (64, 80)
SHIFT = Alignment("y", ((1, 0, 3), (0, 1, 2), (0, 0, 1)), "translation", 0.1, 0.1, 0.2, 4, 0)


def bundle(alignment=None, map_token=8):
    return SimpleNamespace(
        size=OWN, tile_step=8, window_pixels=8, can_tile=map_token is not None, alignment=alignment
    )


def pair(size, y_size=None):
    x, y = scene(1, size)
    frame = np.repeat(y[..., None], 3, axis=2)
    return SamplePair("a", x, frame if y_size is None else resize_frame(frame, y_size))


def samples(size, fit="auto", max_tiles=99, y_size=None, **options):
    return SampleFit(bundle(**options), fit, max_tiles, seed=0)(pair(size, y_size))


@pytest.mark.parametrize("fit", ["auto", "tile", "pad", "exact", "resize"])
def test_a_pair_of_the_bundles_size_is_unchanged(fit):
    (sample,) = samples(OWN, fit)
    np.testing.assert_array_equal(sample.x, pair(OWN).x)
    assert (sample.name, sample.of_pair) == ("a", None)


@pytest.mark.parametrize("fit", ["auto", "tile"])
def test_a_larger_pair_becomes_tiles_at_its_own_scale(fit):
    source = pair((104, 152))
    found = samples((104, 152), fit)
    assert len(found) == 9
    for sample in found:
        left, top = map(int, sample.name.removeprefix("a at ").split(","))
        np.testing.assert_array_equal(sample.x, source.x[top : top + 64, left : left + 80])
        np.testing.assert_array_equal(sample.y, source.y[top : top + 64, left : left + 80])
        assert (sample.of_pair, sample.x.flags.c_contiguous) == ("a", True)


def test_the_number_of_tiles_is_limited_and_their_choice_repeats():
    chosen, again = samples((104, 152), max_tiles=2), samples((104, 152), max_tiles=2)
    assert [s.name for s in chosen] == [s.name for s in again]
    assert len(chosen) == 2


@pytest.mark.parametrize("fit", ["auto", "tile", "pad"])
def test_a_smaller_pair_is_padded_with_its_edge(fit):
    (sample,) = samples((50, 70), fit)
    assert sample.x.shape == (*OWN, 3)
    np.testing.assert_array_equal(sample.x[:50, :70], pair((50, 70)).x)
    assert (sample.x[50:, :70] == sample.x[49, :70]).all()


@pytest.mark.parametrize("options", [{"fit": "resize"}, {"fit": "auto", "map_token": None}])
def test_pairs_are_resized_as_the_fuser_would(options):
    (sample,) = samples((104, 152), **options)
    np.testing.assert_array_equal(sample.x, resize_frame(pair((104, 152)).x, OWN))


@pytest.mark.parametrize(("fit", "expected"), [("exact", ""), ("pad", "at most ")])
def test_what_the_fit_refuses_is_skipped_with_its_size(fit, expected):
    with pytest.raises(InputError) as caught:
        samples((104, 152), fit)
    assert str(caught.value) == f"152x104; expected {expected}80x64, the size of the bundle"


def test_tiles_of_a_single_color_are_left_out():
    half = pair((64, 160))
    half.x[:, 60:] = 7
    found = SampleFit(bundle(), "tile", 99, seed=0)(half)
    assert [sample.name for sample in found] == ["a at 0,0", "a at 40,0"]
    half.x[:] = 7
    with pytest.raises(InputError, match="no tile shows structure in both sources"):
        SampleFit(bundle(), "tile", 99, seed=0)(half)


def test_sources_of_two_sizes_are_aligned_before_they_are_cut():
    source = pair((104, 152), (52, 76))
    found = samples((104, 152), y_size=(52, 76), alignment=SHIFT)
    moved = Warp(SHIFT.matrix_at(OWN, (104, 152)), (104, 152))(resize_frame(source.y, (104, 152)))
    for sample in found:
        left, top = map(int, sample.name.removeprefix("a at ").split(","))
        np.testing.assert_array_equal(sample.y, moved[top : top + 64, left : left + 80])


def test_tiles_of_one_pair_are_never_on_both_sides_of_the_split(tmp_path):
    for number in range(6):
        x, y = scene(number, (104, 152))
        write(tmp_path / f"{number}_x.png", x)
        write(tmp_path / f"{number}_y.png", y)
    split = read_fitted_split(bundle(), find_pairs(tmp_path), "auto", max_pairs=12, min_pairs=4, seed=0)
    fit, held_out = ({sample.of_pair for sample in part} for part in (split.fit, split.held_out))
    assert not fit & held_out
    assert (len(fit), len(held_out), split.are_tiles) == (4, 2, True)
    assert count_samples(split.fit) == "8 tiles of 4 pairs"
    assert count_samples(split.held_out) == "4 tiles of 2 pairs"


@pytest.mark.parametrize(("alignment", "skipped"), [(None, 1), (SHIFT, 0)])
def test_pairs_of_two_sizes_are_used_with_an_alignment_only(alignment, skipped, tmp_path):
    for number in range(5):
        x, y = scene(number)
        write(tmp_path / f"{number}_x.png", x)
        write(tmp_path / f"{number}_y.png", y[:32] if number == 0 else y)
    found = find_pairs(tmp_path)
    split = read_fitted_split(bundle(alignment), found, "auto", max_pairs=9, min_pairs=4, seed=0)
    assert len(split.skipped) == skipped
    assert len(split.fit) + len(split.held_out) == 5 - skipped
