"""Sizes: derived values, and impossible sizes."""

from dataclasses import replace

import pytest

from tcmoa import PRESETS, Sizes
from tcmoa.presets import preset_name

SMALL = Sizes(32, 2, 1, 32, 2, 1)


@pytest.mark.parametrize("preset", ["base", "large"])
def test_tc_moas_follow_blocks_1_5_9_in_the_published_sizes(preset):
    sizes = PRESETS[preset]
    assert sizes.moa_positions(sizes.depth) == list(range(1, sizes.depth, 4))
    assert sizes.moa_positions(sizes.decoder_depth) == list(range(1, sizes.decoder_depth, 4))


@pytest.mark.parametrize("preset", ["tiny", "nano"])
def test_small_presets_weigh_the_sources_and_fill_640x480_with_windows(preset):
    sizes = PRESETS[preset]
    assert sizes.output == "source-weights"
    assert (sizes.moa_positions(sizes.depth), sizes.moa_positions(sizes.decoder_depth)) == ([0, 2], [0])
    assert all(side % (sizes.window * sizes.patch_size) == 0 for side in (640, 480))


def test_sizes_as_published_are_written_without_newer_fields():
    assert not {"adaptation", "output"} & PRESETS["base"].to_dict().keys()
    assert PRESETS["nano"].to_dict()["output"] == "source-weights"
    with pytest.raises(ValueError, match="output is 'mask'; expected one of image, source-weights"):
        replace(SMALL, output="mask")


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
