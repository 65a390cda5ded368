"""The exported bundle against the authors' implementation, on the golden cases."""

import numpy as np
import pytest
from safetensors.torch import load_file

from tcmoa import load_weights
from tcmoa_export import export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.options.export import ExportOptions

CASES = ["vif_224x224", "mef_224x224", "mff_224x224", "mef_224x448", "vif_112x224_up2"]


@pytest.mark.parametrize("case", CASES)
def test_the_uint8_graph_gives_the_image_of_the_authors_code(case, golden, tmp_path):
    task = case.split("_")[0]
    expected = load_file(golden / f"{case}.safetensors")
    x, y = expected["source_x"].numpy(), expected["source_y"].numpy()
    image = np.round(expected["fused"].reshape(3, *x.shape[:2]).permute(1, 2, 0).numpy())
    model = load_weights(golden / "checkpoint.safetensors", upsample=case.endswith("_up2"))
    export_bundle(
        model,
        ExportOptions(task=task, size=x.shape[:2], with_prompt=True, as_published=True),
        tmp_path / "bundle",
    )
    with Fuser.load(tmp_path / "bundle") as fuser:
        fused, prompts = fuser.with_prompt(x, y)

    difference = np.abs(fused.astype(int) - image)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
    for k in range(len(prompts)):
        for source in (0, 1):
            authors = expected[f"prompt_{'xy'[source]}.{k}"].numpy().reshape(prompts.shape[2:])
            assert np.abs(prompts[k, source] - authors).max() < 1e-5
