"""Runs with a small `tiny`, for tests that start them by torchrun: PORT WORDS [PORT WORDS]...

They follow each other in one process, as importing PyTorch takes longer than they do. WORDS is one argument, `train
OPTIONS` as of `tcmoa`, or `two-rounds FILE.toml OUT`, which writes what `distributed_rounds` returns to OUT/RANK.pt.
PORT is a free port at which the processes of that run meet.
"""

import os
import shlex
import sys
from pathlib import Path

import torch

import tcmoa.config
import tcmoa.initial_model
from distributed_rounds import two_rounds
from tcmoa.processes import started_processes
from tcmoa_runtime.cli import run
from training_runs import SMALL

if __name__ == "__main__":
    for module in (tcmoa.initial_model, tcmoa.config):
        module.PRESETS = {"tiny": SMALL}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # torchrun's own store serves one run
    for number, (port, words) in enumerate(zip(sys.argv[1::2], sys.argv[2::2], strict=True)):
        os.environ["MASTER_PORT"] = port
        torch.manual_seed(number)  # a run does not know the random state of the one before
        command = shlex.split(words)
        if command[0] == "two-rounds":
            with started_processes("cpu") as own:
                torch.save(two_rounds(Path(command[1]), own), Path(command[2]) / f"{own.rank}.pt")
        elif code := run(command):
            sys.exit(code)
