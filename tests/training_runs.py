"""Training runs of a model that trains three rounds per second, and the files that they write."""

import torch

from tcmoa import Sizes
from tcmoa.train import run

SMALL = Sizes(64, 2, 2, 64, 2, 2)

CONFIG = """
start = "random"
out = "run"
rounds = 6
warmup_rounds = 2
averaging_rounds = 2
phases = [{ until = 1.0, crop = 112, batch = 1 }]
lr = 1e-3
ema = 0.8
checkpoint_every = 2
sample_every = 4
[pairs]
vif = "vif"
mef = "mef"
mff = "mff"
"""


def configured(pairs, name, text=CONFIG):
    path = pairs / f"{name}.toml"
    path.write_text(text)
    return path


def train(pairs, out, text=CONFIG, **options):
    """Train quietly; the paths of checkpoint and weights."""
    run(configured(pairs, out.name, text), out=out, **options)
    return out / "checkpoint.pt", out / "weights.safetensors"


def read_checkpoint(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def assert_same(a, b, where=""):
    """Two nests of dictionaries, lists and tensors are equal bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where
