"""The same graph in OpenVINO gives the same frames."""

import numpy as np
import pytest

from micro_model import frames
from tcmoa_export import export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.options.export import ExportOptions

pytest.importorskip("openvino", reason="openvino is not installed; `pip install openvino` runs this")

SIZE = (100, 130)


@pytest.mark.parametrize("options", [{}, {"color": "luma", "channel_order": "bgr"}, {"batch": 2}], ids=str)
def test_openvino_fuses_the_same_frames(micro, tmp_path, options):
    from tcmoa_runtime.backends.openvino import _process_core  # one core in a process, see there

    bundle = export_bundle(micro, ExportOptions(task="vif", size=SIZE, **options), tmp_path / "b")
    batch = bundle.contract.batch
    x, y = frames(*SIZE, batch), frames(*SIZE, batch, seed=1)
    rng = np.random.default_rng(0)
    scale, shift = (
        rng.uniform(a, b, (batch, *bundle.contract.grid)).astype(np.float32) for a, b in ((0, 2), (-1, 1))
    )
    with Fuser.load(tmp_path / "b", "onnxruntime") as fuser:
        expected = fuser(x, y, scale=scale, shift=shift)
    compiled = _process_core().compile_model(bundle.graph_path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled({"x": x, "y": y, "prompt_scale": scale, "prompt_shift": shift})["fused"]
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
