"""The processes of a run: one, or as many as torchrun started, each with its part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tcmoa_runtime.errors import MissingError

DEVICES: Final = ("auto", "cpu", "cuda")
CPU: Final = torch.device("cpu")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this process: `auto` is a CUDA device where there is one. MissingError where `cuda` is absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "device is 'cuda', but PyTorch sees no CUDA device here; write device = 'cpu' or 'auto'"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return CPU
    return torch.device("cuda", local_rank)


@dataclass(frozen=True)
class Processes:
    """This process among `count`, and its device."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written: checkpoints, weights, logs, pictures."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, or one that averages gradients over all processes behind every backward pass.

        No parameter that trains is ever unused: a step reads one task's row of the routers' and embeddings' tensors,
        which gives the whole tensor a gradient. So nothing has to be searched for (`find_unused_parameters`).
        """
        if self.count == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes of a tensor that each of them has."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values = values / self.count
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: what ends a round in one must end it in all."""
        if self.count == 1:
            return flag
        counted = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(counted)
        return bool(counted.item())


@contextmanager
def started_processes(device: str) -> Iterator[Processes]:
    """This process as torchrun's environment describes it, connected to the others for a with-block.

    gloo connects CPUs, nccl GPUs (not run on GPUs yet). Raises MissingError as `choose_device` does.
    """
    rank, count, local = (
        int(os.environ.get(n, d)) for n, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if count == 1:
        yield Processes(device=choose_device(device))
        return
    chosen = choose_device(device, local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, chosen)
        distributed.barrier()  # the first one may still be writing
    finally:
        distributed.destroy_process_group()
