"""Sizes: derived values, and impossible sizes."""

from dataclasses import replace

import pytest

from tcmoa import PRESETS, Sizes
from tcmoa.presets import preset_name

SMALL = Sizes(32, 2, 1, 32, 2, 1)


@pytest.mark.parametrize("preset", PRESETS)
def test_tc_moas_follow_blocks_1_5_9(preset):
    sizes = PRESETS[preset]
    assert sizes.moa_positions(sizes.depth) == list(range(1, sizes.depth, 4))
    assert sizes.moa_positions(sizes.decoder_depth) == list(range(1, sizes.decoder_depth, 4))


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 33},
        {"embed_dim": 32.0},
        {"num_heads": 0},
        {"num_heads": 5},
        {"depth": 3},
        {"decoder_depth": 0},
        {"tau": 3},
        {"tau": -4},
        {"top_k": 5},
        {"window": "14"},
    ],
    ids=str,
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(ValueError, match="expected"):
        replace(SMALL, **change)


def test_presets_know_their_names():
    assert [preset_name(sizes) for sizes in PRESETS.values()] == ["base", "large", "tiny", "nano"]
    assert preset_name(SMALL) == "custom"
