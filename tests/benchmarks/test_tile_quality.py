"""Real pairs in tiles are as at their own size, and the measure of seams finds a planted one."""

import numpy as np
import pytest

from tcmoa import load_weights
from tcmoa_calibration import metrics
from tcmoa_runtime import Fuser
from tcmoa_runtime.fit import plan_tiles
from tcmoa_runtime.pairs import PairPaths, read_frame_pair
from tcmoa_runtime.ready_bundles import READY_PRESET
from tile_quality import fuse_at_own_size, psnr_db, seam_ratio, tile_lines

PAIRS = (
    ("mef", "mefb_sculpture"),  # 612x816: two tiles
    ("mff", "mfifb_aymaz_05"),  # 512x512: two tiles
)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), PAIRS)
def test_tiles_are_close_to_the_own_size_and_add_no_seam(task, name, val_pairs):
    paths = [next((val_pairs / task).glob(f"{name}_{side}.*")) for side in "xy"]
    x, y = read_frame_pair(PairPaths(name, *paths))
    own = fuse_at_own_size(load_weights(READY_PRESET).eval(), x, y, task)
    with Fuser.load(f"{READY_PRESET}-{task}") as fuser:
        tiled = fuser(x, y)
        bundle = fuser.bundle
        plan = plan_tiles(x.shape[:2], bundle.size, bundle.token_pixels, bundle.window_pixels)
    assert psnr_db(tiled, own) > 40
    assert abs(metrics.qabf(x, y, tiled) - metrics.qabf(x, y, own)) < 0.005
    assert plan.count > 1
    assert seam_ratio(tiled, own, plan) < 1.03


def test_a_planted_seam_is_found():
    plan = plan_tiles((100, 200), (100, 120), 8)
    assert tile_lines(plan.rows) == []
    starts, tile = plan.columns.starts, plan.columns.tile
    assert set(tile_lines(plan.columns)) == {*starts[1:], *(start + tile for start in starts[:-1])}
    image = np.random.default_rng(0).integers(100, 110, (100, 200, 3), np.uint8)
    planted = image.copy()
    planted[:, tile:] += 20
    assert seam_ratio(image, image, plan) == 1
    assert seam_ratio(planted, image, plan) > 1.5


def test_psnr_is_that_of_the_mean_square():
    black, gray = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr_db(black, black) == 99
    assert psnr_db(gray, black) == 0
