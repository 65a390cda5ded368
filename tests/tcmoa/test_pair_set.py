"""Sets of pairs: small ones are read at once, large ones as needed and within bounds, with the same batches."""

import cv2
import numpy as np
import pytest
import torch

import tcmoa.data
from tcmoa.data import PairSampler, PairSet, VisibleImages, read_pairs
from tcmoa.dataset_layouts import PairSource, find_dataset_pairs
from tcmoa_runtime.errors import InputError

HEIGHT, WIDTH = 40, 48
PAIR_BYTES = 2 * HEIGHT * WIDTH * 3


@pytest.fixture
def folder(tmp_path):
    """Six pairs of noise."""
    rng = np.random.default_rng(0)
    for name in range(6):
        for side in "xy":
            cv2.imwrite(
                str(tmp_path / f"{name}_{side}.png"), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            )
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """The names of the pairs that are decoded, in order."""
    names = []
    read_training_pair = tcmoa.data.read_training_pair

    def counted(paths):
        names.append(paths.name)
        return read_training_pair(paths)

    monkeypatch.setattr(tcmoa.data, "read_training_pair", counted)
    return names


def lazy(folder, cache_bytes=10 * PAIR_BYTES):
    return PairSet(find_dataset_pairs(PairSource(folder)), max_eager_bytes=0, cache_bytes=cache_bytes)


def test_a_small_set_is_read_once_and_at_the_start(folder, reads):
    pairs = read_pairs(folder)
    assert reads == list("012345")
    assert [pair.name for pair in pairs] == list("012345")
    assert len(reads) == 6


def test_a_large_set_is_read_as_needed(folder, reads):
    pairs = lazy(folder)
    assert (len(pairs), reads) == (6, [])
    assert pairs[4].name == pairs[-2].name == pairs[np.int64(4)].name == "4"
    assert [pair.name for pair in pairs[1:3]] == ["1", "2"]
    assert reads == ["4", "1", "2"]
    with pytest.raises(IndexError):
        pairs[6]


def test_the_least_recently_used_pair_is_dropped(folder, reads):
    pairs = lazy(folder, cache_bytes=2 * PAIR_BYTES)
    for index in (0, 1, 0, 2, 0, 1):
        assert pairs[index].name == str(index)
    assert reads == ["0", "1", "2", "1"]


def test_a_pair_larger_than_the_cache_is_read_anyway(folder, reads):
    pairs = lazy(folder, cache_bytes=1)
    assert [pairs[0].name, pairs[0].name, pairs[1].name, pairs[0].name] == ["0", "0", "1", "0"]
    assert reads == ["0", "1", "0"]


def test_reading_as_needed_changes_no_batch(folder):
    def batches(pairs):
        sampler = PairSampler("mff", 2, pairs, VisibleImages(pairs), synthetic=0.4, seed=3)
        return [torch.stack(sampler.batch(step, 32, 4)[:2]) for step in range(5)]

    at_once, as_needed = batches(read_pairs(folder)), batches(lazy(folder, cache_bytes=PAIR_BYTES))
    assert all(torch.equal(a, b) for a, b in zip(at_once, as_needed, strict=True))


def test_each_part_has_its_own_crops_and_the_first_has_those_of_a_single_process(folder):
    sampler = PairSampler("vif", 0, read_pairs(folder), [], synthetic=0, seed=3)
    whole = sampler.batch(7, 32, 2)[0]
    parts = [sampler.batch(7, 32, 2, part)[0] for part in range(3)]
    assert torch.equal(parts[0], whole)
    assert len({part.numpy().tobytes() for part in parts}) == 3


def test_an_unreadable_image_is_named_when_it_is_needed(folder):
    (folder / "3_y.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3_y.png: not a readable image"):
        read_pairs(folder)
    pairs = lazy(folder)
    assert pairs[2].name == "2"
    with pytest.raises(InputError, match=r"3_y.png: not a readable image"):
        pairs[3]


def test_unequal_sizes_are_found_when_the_pair_is_needed(folder):
    cv2.imwrite(str(folder / "5_x.png"), np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(
        InputError,
        match=r"5_x.png: x is 8x9 and y \(.*5_y.png\) 48x40; expected two registered images of one size",
    ):
        lazy(folder)[5]
