"""Training runs: the loop over rounds, the log, and stopping by signals.

`python -m tcmoa.train` is `tcmoa train`; several processes share each batch with
`torchrun --nproc-per-node N -m tcmoa.train CONFIG.toml`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

import torch

from tcmoa.config import TrainConfig, read_config
from tcmoa.processes import started_processes
from tcmoa.teachers import NO_TEACHERS, Teachers
from tcmoa.tensorboard_log import TensorBoardLog, require_tensorboard
from tcmoa.trainer import CHECKPOINT, WEIGHTS, Trainer, learning_rate
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.log import log_step
from tcmoa_runtime.stop_signals import handled_stop_signals
from tcmoa_runtime.typing import OnMessage

LOG = "log.jsonl"

__all__ = ["run"]


def run(
    config_path: str | os.PathLike[str],
    *,
    resume: bool = False,
    out: str | os.PathLike[str] | None = None,
    rounds: int | None = None,
    teachers: Teachers = NO_TEACHERS,
    on_message: OnMessage = log_step,
) -> Path:
    """Train a model.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run after the current round and save it; a second one stops it at once,
    without the rounds since the last checkpoint. Processes that torchrun started share each batch; only the first one
    writes files and calls `on_message`.

    Args:
        config_path: The configuration, a TOML file.
        resume: Continue from the checkpoint in `out`.
        out: Folder of the run, instead of the configuration's.
        rounds: Stop after this many rounds in total. The learning rate schedule does not change, so that the run can be
            resumed.
        teachers: What [teachers] of the configuration may name, e.g. `tcmoa_calibration.baselines.TEACHERS`; functions
            of two lumas, float32 [H, W] in 0..255, to the picture that the model imitates.
        on_message: Called with a line for each round and other progress.

    Returns:
        The path of the averaged weights.

    Raises:
        InputError: The configuration is wrong, data are unreadable, or `out` contains another run.
        MissingError: A device or a package that the configuration needs is missing.
    """
    config = read_config(Path(config_path))
    if out is not None:
        config = TrainConfig(**{**vars(config), "out": Path(out)})
    if config.threads:
        torch.set_num_threads(config.threads)
    exists = (config.out / CHECKPOINT).exists()
    if exists and not resume:
        raise InputError(
            "already contains a run",
            subject=config.out,
            remedy="Continue it with {resume}, or choose another {out}",
            settings={"resume": True, "out": ...},
        )
    if resume and not exists:
        raise InputError(
            f"no {CHECKPOINT} to resume",
            subject=config.out,
            remedy="Start the run without {resume}",
            settings={"resume": ...},
        )
    if config.tensorboard:
        require_tensorboard()
    with started_processes(config.device) as processes:
        reports = on_message if processes.is_first else log_step
        trainer = Trainer(config, processes, reports, teachers=teachers)
        return _run(trainer, reports, resume=resume, rounds=rounds)


def _run(trainer: Trainer, on_message: OnMessage, *, resume: bool, rounds: int | None) -> Path:
    config = trainer.config
    if resume:
        trainer.resume(on_message)
    config.out.mkdir(parents=True, exist_ok=True)
    last = config.rounds if rounds is None else min(config.rounds, rounds)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    on_message(f"training {trainable:,} parameters, rounds {trainer.round} to {last} of {config.rounds}")
    if config.tensorboard and trainer.processes.is_first:
        trainer.tensorboard = TensorBoardLog(
            config.out, trainer.model, first_round=trainer.round + 1, every=config.sample_every
        )
    try:
        with _finish_round_on_signal(on_message) as stop:
            try:
                _loop(trainer, last, on_message, stop)
            finally:
                if not trainer.in_round:
                    trainer.save()
        if config.samples:
            trainer.write_samples()
    finally:
        if trainer.tensorboard is not None:
            trainer.tensorboard.close()
    return config.out / WEIGHTS


@contextmanager
def _finish_round_on_signal(on_message: OnMessage) -> Iterator[threading.Event]:
    """Set the event on a signal to stop, so that the current round is finished; a second signal interrupts at once."""
    stop = threading.Event()

    def request_stop(_signal: Signals) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        on_message("stopping after this round; interrupt a second time to stop at once")

    with handled_stop_signals(request_stop):
        yield stop


def _loop(trainer: Trainer, last: int, on_message: OnMessage, stop: threading.Event) -> None:
    config = trainer.config
    while trainer.round < last:
        phase, began = trainer.phase(), time.perf_counter()
        losses = trainer.run_round()
        seconds = time.perf_counter() - began
        rate = 2 * phase.batch * sum(config.task_steps(task) for task in losses) / seconds
        left = (last - trainer.round) * seconds / 60
        line = "  ".join(f"{task} {terms['total']:.3f}" for task, terms in losses.items())
        on_message(
            f"round {trainer.round:5d}/{config.rounds}  {line}  {rate:.1f} images/s  {left:.0f} min left"
        )
        if trainer.processes.is_first:
            record = {"round": trainer.round, "losses": losses, "images_per_s": round(rate, 2)}
            with (config.out / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
        if trainer.tensorboard is not None:
            trainer.tensorboard.write_round(trainer.round, losses, learning_rate(config, trainer.round - 1))
        if trainer.processes.any(stop.is_set()):
            raise KeyboardInterrupt
        if trainer.round % config.checkpoint_every == 0:
            trainer.save()
        if config.samples and trainer.round % config.sample_every == 0:
            trainer.write_samples()


if __name__ == "__main__":
    from tcmoa_runtime.cli import run as command

    sys.exit(command(["train", *sys.argv[1:]]))
