"""The processes of a run: one, or those that torchrun started; each computes a part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tcmoa_runtime.errors import MissingError

DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]
DEVICES: Final[tuple[DeviceChoice, ...]] = ("auto", "cpu", "cuda")
CPU: Final = torch.device("cpu")


def choose_device(name: DeviceChoice, local_rank: int = 0) -> torch.device:
    """Return the device of this process; `auto` is CUDA if it is available, else the CPU.

    Raises:
        MissingError: `name` is `cuda`, and PyTorch finds no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "device is 'cuda'; PyTorch finds no CUDA device", remedy="Set device = 'cpu' or 'auto'"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return CPU
    return torch.device("cuda", local_rank)


@dataclass(frozen=True)
class Processes:
    """The rank of this process, the number of processes, and the device of this one."""

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """Whether this process writes the checkpoints, weights, logs and images."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model, wrapped to average gradients over all processes if there are several.

        Every trainable parameter takes part in every step: a step reads one task's row of the routers' and embeddings'
        tensors, which gives the whole tensor a gradient. `find_unused_parameters` is therefore not needed.
        """
        if self.count == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
            values = values / self.count
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all processes must end a round together."""
        if self.count == 1:
            return flag
        counted = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(counted)
        return bool(counted.item())


@contextmanager
def started_processes(device: DeviceChoice) -> Iterator[Processes]:
    """Connect this process to the others that torchrun started, for the duration of a with-block.

    CPUs are connected by gloo, GPUs by NCCL (not run on GPUs yet).

    Raises:
        MissingError: As `choose_device`.
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
        distributed.barrier()  # the first process may still be writing
    finally:
        distributed.destroy_process_group()
