"""Two rounds of a small run, in each of its processes, for `tests/tcmoa/test_processes.py`."""

import torch

from tcmoa.config import read_config
from tcmoa.trainer import Trainer


def two_rounds(config, processes):
    """Gradients after the first and weights after the second round, and the losses of both.

    The first round is without the routers' noise, which differs between processes, and the second with it.
    """
    trainer = Trainer(read_config(config), processes)
    noise, torch.randn_like = torch.randn_like, torch.zeros_like
    try:
        losses = [trainer.run_round()]
    finally:
        torch.randn_like = noise
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    losses.append(trainer.run_round())
    return {"gradients": gradients, "model": trainer.model.state_dict(), "losses": losses}
