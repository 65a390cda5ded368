"""Exported graphs against the unfolded model, on random frames and prompt maps."""

import numpy as np
import torch

from micro_model import frames
from onnx_pieces import run_graph
from tcmoa.reference import fuse_frames
from tcmoa_export.network import build_graph
from tcmoa_export.spec import make_spec
from tcmoa_runtime.options.export import ExportOptions


def compare(model, size, task="vif", *, scale=None, shift=None, seed=0, **options):
    """Return the largest difference in gray levels, the share of values that differ, and the largest of prompts."""
    spec = make_spec(model, ExportOptions(task=task, size=size, with_prompt=True, **options))
    batch = spec.options.batch
    x, y = frames(*size, batch, seed), frames(*size, batch, seed + 100)
    # To the model, a source of one channel has the same gray in all three.
    x = np.repeat(x[..., :1], 3, -1) if spec.contract.x_channels == 1 else x
    y = np.repeat(y[..., :1], 3, -1) if spec.contract.y_channels == 1 else y
    rng = np.random.default_rng(seed)
    shape = (batch, *spec.layout.grid)
    scale = (
        rng.uniform(0.5, 1.5, shape).astype(np.float32)
        if scale is None
        else np.full(shape, scale, np.float32)
    )
    shift = (
        rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        if shift is None
        else np.full(shape, shift, np.float32)
    )

    model.as_published = spec.options.as_published
    try:
        expected = fuse_frames(
            model,
            torch.from_numpy(x),
            torch.from_numpy(y),
            task,
            scale=torch.from_numpy(scale),
            shift=torch.from_numpy(shift),
            routers=[model.sizes.tasks[r] for r in spec.routers],
            fit=spec.layout.fit,
            color=spec.options.color,
        )
    finally:
        model.as_published = False
    flip = spec.options.channel_order == "bgr"

    def to_graph(frame, channels):
        return np.ascontiguousarray(frame[..., :1] if channels == 1 else frame[..., ::-1] if flip else frame)

    proto = build_graph(model, spec, "test", "0")
    got = run_graph(
        proto,
        x=to_graph(x, spec.contract.x_channels),
        y=to_graph(y, spec.contract.y_channels),
        prompt_scale=scale,
        prompt_shift=shift,
    )
    fused = got["fused"][..., ::-1] if flip else got["fused"]
    difference = np.abs(fused.astype(int) - expected.fused.round().numpy())
    assert fused.shape == (batch, *size, 3)
    assert got["prompt"].shape == tuple(expected.prompt.shape)
    assert fused.std() > 5  # an image, not a constant
    return difference.max(), (difference > 0).mean(), np.abs(got["prompt"] - expected.prompt.numpy()).max()


def assert_equal_to_model(*args, **options):
    largest, share, prompts = compare(*args, **options)
    assert largest <= 1
    assert share < 0.005
    assert prompts < 1e-4
