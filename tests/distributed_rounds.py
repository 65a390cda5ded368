"""Two rounds of a small run for `tests/tcmoa/test_processes.py`, which starts it by torchrun: FILE.toml OUT.

Writes, from each process, the gradients of the first round (without the routers' noise, which differs between
processes) and the weights after the second (with it).
"""

import sys
from pathlib import Path

import torch

import tcmoa.config
import tcmoa.initial_model
from tcmoa.config import read_config
from tcmoa.processes import started_processes
from tcmoa.trainer import Trainer
from training_runs import SMALL


def two_rounds(config, processes):
    """Gradients after the first and weights after the second round, and the losses of both."""
    trainer = Trainer(read_config(config), processes)
    noise, torch.randn_like = torch.randn_like, torch.zeros_like
    try:
        losses = [trainer.run_round()]
    finally:
        torch.randn_like = noise
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    losses.append(trainer.run_round())
    return {"gradients": gradients, "model": trainer.model.state_dict(), "losses": losses}


if __name__ == "__main__":
    for module in (tcmoa.initial_model, tcmoa.config):
        module.PRESETS = {"tiny": SMALL}
    with started_processes("cpu") as own:
        torch.save(two_rounds(Path(sys.argv[1]), own), Path(sys.argv[2]) / f"{own.rank}.pt")
