"""The unfolded model against the authors' implementation, on the golden cases."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tcmoa import load_weights

CASES = ["vif_224x224", "mef_224x224", "mff_224x224", "mef_224x448", "vif_112x224_up2"]


@pytest.mark.parametrize("case", CASES)
def test_golden_output_and_prompts(case, golden):
    model = load_weights(golden / "checkpoint.safetensors", upsample=case.endswith("_up2"))
    model.as_published = True
    expected = load_file(golden / f"{case}.safetensors")
    x, y = (expected[f"source_{s}"].permute(2, 0, 1)[None].float() / 255 for s in "xy")
    with torch.no_grad():
        result = model(x, y, case.split("_")[0])

    assert (result.decoded - expected["decoder_output"]).abs().max() < 1e-4
    fused = (result.image * 255).clamp(0, 255)
    assert (fused - expected["fused"]).abs().max() < 1e-3
    assert len(result.prompts) == 3
    for k, prompts in enumerate(result.prompts):
        for name, prompt in zip("xy", prompts, strict=True):
            assert (prompt.flatten() - expected[f"prompt_{name}.{k}"].flatten()).abs().max() < 1e-5


def test_position_quirk_matters_on_non_square_frames_only(golden):
    """The quirk is off by default; it changes a non-square result and leaves square ones alone."""
    model = load_weights(golden / "checkpoint.safetensors", upsample=False)
    for case, differs in (("mef_224x224", False), ("mef_224x448", True)):
        sources = load_file(golden / f"{case}.safetensors")
        x, y = (sources[f"source_{s}"].permute(2, 0, 1)[None].float() / 255 for s in "xy")
        with torch.no_grad():
            model.as_published = False
            right = model(x, y, "mef").image
            model.as_published = True
            quirky = model(x, y, "mef").image
        assert (not torch.equal(right, quirky)) == differs


def test_sizes_are_inferred_as_the_config_says(golden):
    config = json.loads((golden / "config.json").read_text())
    sizes = load_weights(golden / "checkpoint.safetensors").sizes.to_dict()
    shared = sizes.keys() & config.keys()
    assert len(shared) == 13
    assert {k: sizes[k] for k in shared} == {k: config[k] for k in shared}
    assert np.all(config["shift"] == 7)
