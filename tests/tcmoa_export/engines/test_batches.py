"""Engines that fuse several frames at once, e.g. of two pairs of cameras, as TensorRT-RTX builds them without a GPU."""

import pytest

from engine_pieces import NO_RTX, export_unchecked
from micro_model import scrambled
from tcmoa_export import build_engine
from tcmoa_runtime.cli.engine_rows import engine_rows
from tcmoa_runtime.options.build import BuildOptions


def test_a_batch_takes_the_kernels_of_one_frame_and_no_more_bytes_per_frame(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason=NO_RTX)
    engines = {}
    for batch in (1, 2):
        options = {"size": (112, 112), "precision": "fp16", "batch": batch}
        bundle = export_unchecked(scrambled(), tmp_path / str(batch), **options)
        engines[batch] = build_engine(bundle, BuildOptions(targets=("sm89",)))
    one = engines[1].manifest
    for batch, engine in engines.items():
        manifest = engine.manifest
        assert manifest["kernels"] == one["kernels"]
        assert manifest["fused_attentions"] == manifest["attentions"] == 10
        assert manifest["flops"] == batch * one["flops"]
        # Weights are read once for the batch.
        assert manifest["constant_bytes"] < 1.1 * one["constant_bytes"]
        assert manifest["bytes_moved"] / batch <= one["bytes_moved"]
        rows = dict(engine_rows(engine))
        assert f"{manifest['bytes_moved'] / batch / 1e9:.3f} GB per frame" in rows["moves"]
        assert f"{manifest['bounds']['RTX 4090']['ms'] / batch:.2f} ms" in rows["bound"]
        assert (f"per frame in batches of {batch}" in rows["moves"]) == (batch > 1)
        assert (f"per frame in batches of {batch}" in rows["bound"]) == (batch > 1)
