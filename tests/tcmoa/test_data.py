"""Sampling of training pairs: no state, equal crops of both sources, images of any size."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmoa.data import Augmentation, PairSampler, TrainingPair, create_samplers, read_pairs
from tcmoa_runtime.errors import InputError

TASKS = ("vif", "mef", "mff")
ROUNDING = 1.01 / 255
"""What rounding of two resized uint8 images can add up to."""


def sampler(task="vif", pairs=(), photographs=(), synthetic=0.0, seed=0, **options):
    return PairSampler(
        task, TASKS.index(task), list(pairs), list(photographs), synthetic=synthetic, seed=seed, **options
    )


@pytest.fixture(scope="module")
def opposites(photo):
    """y is the negative of x, so that equal crops add up to white."""
    x = photo[:140, :180]
    return TrainingPair("opposites", x, 255 - x)


def test_a_batch_depends_on_seed_step_and_task_only(opposites, photo):
    one = sampler("mff", [opposites], [photo], 0.5)
    in_order = [torch.stack(one.batch(step, 64, 3)[:2]) for step in range(4)]
    for step in (3, 0, 2):
        again = sampler("mff", [opposites], [photo], 0.5)
        assert torch.equal(torch.stack(again.batch(step, 64, 3)[:2]), in_order[step])
    assert not torch.equal(in_order[0], in_order[1])


def test_seeds_and_tasks_get_different_crops_of_the_same_pair(opposites):
    batches = [
        sampler(task, [opposites], seed=seed).batch(0, 64, 3)[0] for task in TASKS for seed in range(3)
    ]
    assert len({batch.numpy().tobytes() for batch in batches}) == 9


@settings(max_examples=25)
@given(
    height=st.integers(9, 140),
    width=st.integers(9, 180),
    size=st.sampled_from([16, 48, 112]),
    step=st.integers(0, 10**6),
)
def test_both_sources_get_the_same_crop_of_images_of_any_size(opposites, height, width, size, step):
    cut = TrainingPair("cut", opposites.x[:height, :width], opposites.y[:height, :width])
    x, y, _ = sampler(pairs=[cut]).batch(step, size, 2)
    for image in (x, y):
        assert image.shape == (2, 3, size, size)
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        assert 0 <= image.min() <= image.max() <= 1
    assert (x + y - 1).abs().max() < ROUNDING


def test_crops_are_whole_or_half_size_pieces_in_all_eight_orientations():
    """In an image whose red is the row and green the column, pixels show where a crop comes from."""
    row, col = np.mgrid[:200, :200].astype(np.uint8)
    image = np.stack((row, col, 0 * row), -1)
    x, _, _ = sampler(pairs=[TrainingPair("coordinates", image, image)]).batch(0, 32, 100)
    seen, steps, corners = set(), [], []
    for red, green, _ in (x * 255).tolist():
        down = [(source[31][16] - source[0][16]) / 31 for source in (red, green)]
        across = [(source[16][31] - source[16][0]) / 31 for source in (red, green)]
        step = max(map(abs, down))
        for slopes in (down, across):
            assert sorted(map(abs, slopes)) == pytest.approx([0, step], abs=0.1)
        seen.add(tuple(np.sign(np.round(down + across))))
        steps.append(step)
        corners.append(red[0][0])
    assert len(seen) == 8
    assert min(steps) == pytest.approx(1, abs=0.01)
    assert 1.8 < max(steps) < 2.1  # a view of twice the window at most
    assert np.std(corners) > 20


@pytest.mark.parametrize("task", TASKS)
def test_only_mef_and_mff_make_pairs_from_photographs(opposites, photo, task):
    """A made pair never adds up to white, the real one always does."""
    x, y, _ = sampler(task, [opposites], [photo], synthetic=1.0).batch(0, 48, 4)
    real = [(a + b - 1).abs().max() < ROUNDING for a, b in zip(x, y, strict=True)]
    assert real == [task == "vif"] * 4
    if task == "mef":
        assert (x >= y - ROUNDING).all()


def test_without_photographs_all_pairs_are_real(opposites):
    x, y, _ = sampler("mff", [opposites], [], synthetic=1.0).batch(0, 48, 4)
    assert (x + y - 1).abs().max() < ROUNDING


def luma(image):
    return (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


@settings(max_examples=15)
@given(
    height=st.integers(9, 140),
    width=st.integers(9, 180),
    size=st.sampled_from([16, 112]),
    task=st.sampled_from(TASKS),
    synthetic=st.sampled_from([0.0, 1.0]),
    step=st.integers(0, 10**6),
)
def test_the_picture_of_a_teacher_has_the_crop_of_the_sources(
    opposites, photo, height, width, size, task, synthetic, step
):
    cut = TrainingPair("cut", opposites.x[:height, :width], opposites.y[:height, :width])
    teach = {"teacher": lambda x, y: 0.75 * x + 0.25 * y, "augmentation": Augmentation(0.5, 0.5)}
    x, y, target = sampler(task, [cut], [photo], synthetic, **teach).batch(step, size, 2)
    assert target.shape == (2, 1, size, size)
    torch.testing.assert_close(target, luma(0.75 * x + 0.25 * y), rtol=0, atol=1e-5)


def test_a_teacher_sees_what_surrounds_the_crop_but_no_more_than_it_needs():
    seen = []

    def watch(x, y):
        seen.append(x.shape)
        assert x.dtype == y.dtype == np.float32
        assert 100 < x.max() <= 255
        return x

    image = np.random.default_rng(0).integers(0, 256, (900, 300, 3), np.uint8)
    sampler(pairs=[TrainingPair("large", image, image)], teacher=watch).batch(0, 32, 20)
    assert max(shape[0] for shape in seen) == 32 + 2 * 320
    assert max(shape[1] for shape in seen) == 300


def test_sources_of_exposures_and_focus_are_exchanged_and_tones_of_vif_are_changed(photo):
    pair = TrainingPair("pair", photo, np.zeros_like(photo))
    everything = {"augmentation": Augmentation(tones=1.0, exchanges=1.0)}
    for task in TASKS:
        x, y, _ = sampler(task, [pair], **everything).batch(0, 224, 8)
        if task != "vif":
            assert x.max() == 0
            assert y.max() > 0.9
            continue
        plain, _, _ = sampler(task, [pair]).batch(0, 224, 8)
        assert 0 <= x.min() <= x.max() <= 1
        assert (x.mean((1, 2, 3)) - plain.mean()).abs().max() > 0.03
        negatives = (y.mean((1, 2, 3)) > 0.5).sum()
        assert 0 < negatives < 8
    x, y, _ = sampler("mff", [pair], augmentation=Augmentation(exchanges=0.5)).batch(0, 64, 20)
    assert 3 < (y.amax((1, 2, 3)) > 0).sum() < 17


def write_pair(folder, name, x, y):
    folder.mkdir(exist_ok=True)
    for source, image in (("x", x), ("y", y)):
        cv2.imwrite(str(folder / f"{name}_{source}.png"), image[..., ::-1])


def test_each_folder_gets_a_sampler_and_the_visible_images_are_the_photographs(tmp_path, photo, coffee):
    write_pair(tmp_path / "vif", "b", photo, coffee)
    write_pair(tmp_path / "vif", "a", coffee, photo)
    write_pair(tmp_path / "mff", "c", photo, photo)
    found = create_samplers({task: tmp_path / task for task in ("vif", "mff")}, TASKS, synthetic=0.5, seed=3)
    assert list(found) == ["vif", "mff"]
    assert [pair.name for pair in found["vif"].pairs] == ["a", "b"]
    assert np.array_equal(found["vif"].pairs[1].x, photo)
    assert np.array_equal(found["mff"].photographs[0], coffee)
    assert (found["vif"].synthetic, found["mff"].synthetic) == (0, 0.5)


def test_a_pair_of_two_sizes_is_refused(tmp_path, photo):
    write_pair(tmp_path, "p", photo, photo[:100, :90])
    with pytest.raises(
        InputError, match=r"p_x.png: x is 224x224 and y \(.*p_y.png\) 90x100; expected two registered images"
    ):
        read_pairs(tmp_path)
