"""`tcmoa train` with a small `tiny`, for tests that start it by torchrun: PORT OPTIONS [PORT OPTIONS]...

The runs follow each other in one process, as importing PyTorch takes longer than they do. OPTIONS is one argument, and
PORT a free port at which the processes of that run meet.
"""

import os
import shlex
import sys

import torch

import tcmoa.config
import tcmoa.initial_model
from tcmoa_runtime.cli import run
from training_runs import SMALL

if __name__ == "__main__":
    for module in (tcmoa.initial_model, tcmoa.config):
        module.PRESETS = {"tiny": SMALL}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # torchrun's own store serves one run
    for number, (port, options) in enumerate(zip(sys.argv[1::2], sys.argv[2::2], strict=True)):
        os.environ["MASTER_PORT"] = port
        torch.manual_seed(number)  # a run does not know the random state of the one before
        if code := run(["train", *shlex.split(options)]):
            sys.exit(code)
