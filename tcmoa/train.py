"""Training: steps of the tasks in turn, EMA that is applied, checkpoints that resume exactly.

`python -m tcmoa.train` is `tcmoa train`; several processes share each batch with
`torchrun --nproc-per-node N -m tcmoa.train CONFIG.toml`.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tcmoa.average import Average
from tcmoa.board import Board, require_tensorboard
from tcmoa.config import GROW_PREFIX, MAE_PREFIX, Phase, TrainConfig, read_config
from tcmoa.data import PairSampler, samplers
from tcmoa.grow import grow
from tcmoa.losses import REGULARISER, STRIP, WARMUP, prompt_regulariser, weighted_terms
from tcmoa.mixed_precision import MixedPrecision
from tcmoa.model import TCMoA
from tcmoa.presets import PRESETS, preset_name
from tcmoa.processes import Processes, started_processes
from tcmoa.samples import write_contact_sheet
from tcmoa.start import FUSIONS, start_as_fusion
from tcmoa.trainable import ADAPTED, parameter_counts, parameter_groups, set_trainable
from tcmoa.weights import load_start, save_weights
from tcmoa_runtime.contract import PATCH
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import find_pairs

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"

__all__ = ["ADAPTED", "Average", "Training", "build_model", "learning_rate", "parameter_groups", "run"]


def _say(message: str) -> None:
    print(message, flush=True)


def _nothing(_: str) -> None:
    pass


def build_model(config: TrainConfig, say: Callable[[str], None] = _nothing) -> TCMoA:
    """The model at step 0, with gradients only where the configuration trains; `say` hears what a file gave to it.

    Raises InputError on a `start` that is unreadable or does not fit, and on sizes that no model can have.
    """
    torch.manual_seed(config.seed)
    if config.start in (*FUSIONS, "random"):
        model = _preset_model(config)
        if config.start in FUSIONS:
            try:
                start_as_fusion(model, config.seed, FUSIONS[config.start])
            except ValueError as error:
                raise InputError(
                    f"start '{config.start}' does not fit preset '{config.preset}': {error}"
                ) from error
    elif config.start.startswith(GROW_PREFIX):
        model = _grown(config, say)
    else:
        file = config.start.removeprefix(MAE_PREFIX)
        backbone = PRESETS[config.preset] if file != config.start else None
        model, fresh = load_start(file, config.size_changes, backbone=backbone)
        counts = parameter_counts(model)
        taken = f"{counts.backbone:,} parameters of the backbone"
        said = f"{counts.adapted + counts.source_embeddings:,} beside it are fresh, drawn from seed {config.seed}"
        say(f"{file}: {taken}; {said}" if fresh else f"{file}: all parameters")
    model.train_for(config.train_for)
    set_trainable(model, freeze_backbone=config.freeze_backbone)
    say(str(parameter_counts(model)))
    return model


def _preset_model(config: TrainConfig) -> TCMoA:
    try:
        return TCMoA(replace(PRESETS[config.preset], **config.size_changes))
    except ValueError as error:
        raise InputError(f"[sizes] does not fit preset '{config.preset}': {error}") from error


def _grown(config: TrainConfig, say: Callable[[str], None]) -> TCMoA:
    """The preset's model, started as the smaller trained one of `start`."""
    file, model = config.start.removeprefix(GROW_PREFIX), _preset_model(config)
    small, fresh = load_start(file, {})
    if fresh:
        raise InputError(
            f"{file}: is an MAE backbone, expected a trained TC-MoA; write '{MAE_PREFIX}' before it"
        )
    try:
        grow(small, model, config.seed)
    except ValueError as error:
        raise InputError(f"{file}: does not grow to preset '{config.preset}': {error}") from error
    say(f"{file}: {preset_name(small.sizes)}, grown to {preset_name(model.sizes)}")
    return model


def learning_rate(config: TrainConfig, round_: int) -> float:
    """Linear warm-up, then cosine to `min_lr`."""
    if round_ < config.warmup_rounds:
        return config.lr * (round_ + 1) / config.warmup_rounds
    share = (round_ - config.warmup_rounds) / max(1, config.rounds - config.warmup_rounds)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * share))


class Training:
    """A run: model, optimiser, average and the number of finished rounds."""

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes | None = None,
        say: Callable[[str], None] = _nothing,
    ) -> None:
        self.config = config
        self.processes = processes or Processes()
        self.model = build_model(config, say).to(self.processes.device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, config), betas=config.betas)
        self.precision = MixedPrecision(config.amp, self.processes.device)
        self.average = Average(self.model, config.ema)
        self.board: Board | None = None
        self.round = 0
        self.in_round = False  # between rounds all that is saved belongs together
        for crop in (phase.crop for phase in config.phases):
            if crop % self.model.window_pixels:
                raise InputError(
                    f"crop {crop} in 'phases': expected a multiple of {self.model.window_pixels}"
                )
            if crop % PATCH and "mff" in config.trained_pairs:
                raise InputError(
                    f"crop {crop} in 'phases': mff compares patches, expected a multiple of {PATCH}"
                )
        borders = (self.model.window_pixels, self.model.shift_pixels)
        if any(side % STRIP for side in borders) and any(
            "seams" in config.image_losses(task) for task in config.trained_pairs
        ):
            raise InputError(
                f"'seams' in [losses]: windows of {borders[0]} pixels, shifted by {borders[1]}; expected multiples of "
                f"{STRIP}: leave it out, or change patch_size in [sizes]"
            )
        for batch in (phase.batch for phase in config.phases):
            if batch % self.processes.count:
                raise InputError(
                    f"batch {batch} in 'phases': expected a multiple of {self.processes.count}, the number of processes"
                )
        self.samplers: dict[str, PairSampler] = samplers(
            config.trained_pairs, self.model.sizes.tasks, synthetic=config.synthetic, seed=config.seed
        )
        self.forward = self.processes.wrap(self.model)

    def phase(self) -> Phase:
        """The phase that the next round belongs to."""
        share = self.round / self.config.rounds
        return next(phase for phase in self.config.phases if share < phase.until)

    def run_round(self) -> dict[str, dict[str, float]]:
        """Each task's steps; losses by task and name, all as weighted, mean over its steps and all processes."""
        config, phase = self.config, self.phase()
        self.in_round = True
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.round) * group["factor"]
        losses = {}
        for stream, (task, sampler) in enumerate(self.samplers.items()):
            part, count, steps = (
                self.processes.rank,
                phase.batch // self.processes.count,
                config.task_steps(task),
            )
            of_steps = []
            for step in range(self.round * steps, (self.round + 1) * steps):
                # The routers' noise, like the crops, is a function of seed, step, task and process: resuming is exact.
                torch.manual_seed(self._noise_seed(step, stream))  # all devices' generators, CUDA's too
                x, y = sampler.batch(step, phase.crop, count, part)
                of_steps.append(self._step(task, x.to(self.processes.device), y.to(self.processes.device)))
            losses[task] = {name: sum(terms[name] for terms in of_steps) / steps for name in of_steps[0]}
        self.average.update(self.model)
        self.round += 1
        self.in_round = False
        return losses

    def _noise_seed(self, step: int, stream: int) -> int:
        if self.processes.is_first:
            return (self.config.seed * 1_000_003 + step) * 16 + stream
        entropy = (self.config.seed, step, stream, self.processes.rank)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _step(self, task: str, x: Tensor, y: Tensor) -> dict[str, float]:
        config = self.config
        with self.precision.autocast():
            result = self.forward(x, y, task)
        weights = WARMUP[task] if self.round < config.averaging_rounds else config.image_losses(task)
        borders = {"window": self.model.window_pixels, "shift": self.model.shift_pixels}
        terms = weighted_terms(weights, x, y, result.image.float(), **borders)
        regulariser = prompt_regulariser(result.prompts, self.model.sizes.encoder_moas)
        terms[REGULARISER] = config.regulariser_weight(task) * regulariser
        # Published: divided by (epoch + 1); here an epoch is a twentieth of the run, as there were twenty.
        terms["balance"] = config.balance * result.imbalance / (20 * self.round // config.rounds + 1)
        total = torch.stack(list(terms.values())).sum()
        if self.processes.any(not torch.isfinite(total)):
            raise FloatingPointError(f"loss of {task} is {total.item()} in round {self.round}")
        self.precision.step(total, self.model, self.optimizer, config.clip)
        if self.board is not None:
            self.board.step(task, result.prompts, self.round + 1)
        shown = self.processes.mean(torch.stack([total, *terms.values()]).detach())
        return dict(zip(("total", *terms), shown.tolist(), strict=True))

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each beside its place and renamed.

        Only the first process writes.
        """
        if not self.processes.is_first:
            return
        target = self.config.out / CHECKPOINT
        partial = target.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.values,
                "optimizer": self.optimizer.state_dict(),
                "loss_scale": self.precision.state_dict(),
                "round": self.round,
                "processes": self.processes.count,
                "device": self.processes.device.type,
                "config": json.dumps(resumable(self.config)),
            },
            partial,
        )
        partial.replace(target)
        with self.average.applied(self.model):
            save_weights(
                self.model,
                self.config.out / WEIGHTS,
                notes={"rounds": str(self.round), "config": json.dumps(self.config.to_dict())},
            )

    def resume(self, say: Callable[[str], None] = _nothing) -> None:
        """Go on from the checkpoint in `out`.

        Raises InputError when it is unreadable, of another configuration, or of another number of processes.
        """
        path = self.config.out / CHECKPOINT
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            stored = dict(json.loads(state["config"]))
        except Exception as error:  # damaged pickles end in any of them: IndexError, struct.error, ...
            raise InputError(f"{path}: cannot be resumed from: {error}".splitlines()[0]) from error
        # A checkpoint of before a setting existed was made with what is its default now.
        stored = {**resumable(TrainConfig(pairs={})), **stored}
        wanted = resumable(self.config)
        changed = [key for key in wanted if stored[key] != wanted[key]]
        if changed:
            key = changed[0]
            raise InputError(
                f"{path}: made with {key} = {stored[key]!r}, now {wanted[key]!r}; "
                f"restore it or start anew in another 'out'"
            )
        count = state.get("processes", 1)
        if count != self.processes.count:
            raise InputError(
                f"{path}: made by {count} processes, now {self.processes.count}, which would see other crops; "
                f"resume with torchrun --nproc-per-node {count}, or start anew in another 'out'"
            )
        device = self.processes.device
        if state.get("device", device.type) != device.type:
            say(f"made on {state['device']}, goes on on {device.type}: rounding will differ")
        self.model.load_state_dict(state["model"])
        self.average.values = {name: value.to(device) for name, value in state["average"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state.get("loss_scale", {}))
        self.round = state["round"]

    def write_samples(self) -> None:
        """Fuse the sample pairs with the averaged weights into one contact sheet in `out`; the first process does."""
        if not self.processes.is_first:
            return
        rows = []
        for task, folder in self.config.samples.items():
            for pair in find_pairs(folder)[:2]:
                rows.append((task, read_frame(pair.x), read_frame(pair.y)))
        with self.average.applied(self.model):
            target = self.config.out / f"samples-{self.round:06d}.jpg"
            write_contact_sheet(self.model, rows, target)
        if self.board is not None:
            self.board.picture(target, self.round)


def resumable(config: TrainConfig) -> dict[str, Any]:
    """The settings that must be equal for a resumed run to equal an uninterrupted one."""
    free = ("out", "checkpoint_every", "sample_every", "samples", "threads", "pairs", "device", "tensorboard")
    return {key: value for key, value in config.to_dict().items() if key not in free}


def run(
    config_path: str | os.PathLike[str],
    *,
    resume: bool = False,
    out: str | os.PathLike[str] | None = None,
    rounds: int | None = None,
    say: Callable[[str], None] = _say,
) -> Path:
    """Train as `config_path` (TOML) says and return the path of the averaged weights.

    `out` overrides the configuration's folder. `resume` goes on from its checkpoint. `rounds` stops after so
    many rounds in total without changing the schedule, to be resumed later. Ctrl-C and SIGTERM end it
    after the round in progress, saved; a second one at once, back to the last checkpoint. Started by torchrun, the
    processes share each batch, and the first one alone speaks and writes.
    Raises InputError on a wrong configuration, unreadable data, or an `out` that holds another run; MissingError
    where the device or the package that the configuration asks for is missing.
    """
    config = read_config(Path(config_path))
    if out is not None:
        config = TrainConfig(**{**vars(config), "out": Path(out)})
    if config.threads:
        torch.set_num_threads(config.threads)
    exists = (config.out / CHECKPOINT).exists()
    if exists and not resume:
        raise InputError(f"{config.out}: holds a run already; go on with --resume, or choose another --out")
    if resume and not exists:
        raise InputError(f"{config.out}: holds no {CHECKPOINT} to resume from; start without --resume")
    if config.tensorboard:
        require_tensorboard()
    with started_processes(config.device) as processes:
        return _run(config, processes, say if processes.is_first else _nothing, resume=resume, rounds=rounds)


def _run(
    config: TrainConfig,
    processes: Processes,
    say: Callable[[str], None],
    *,
    resume: bool,
    rounds: int | None,
) -> Path:
    training = Training(config, processes, say)
    if resume:
        training.resume(say)
    config.out.mkdir(parents=True, exist_ok=True)
    last = config.rounds if rounds is None else min(config.rounds, rounds)
    trainable = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
    say(f"training {trainable:,} parameters, rounds {training.round} to {last} of {config.rounds}")
    if config.tensorboard and processes.is_first:
        training.board = Board(
            config.out, training.model, first_round=training.round + 1, every=config.sample_every
        )
    try:
        with _rounds_end_whole(say) as stop:
            try:
                _loop(training, last, say, stop)
            finally:
                if not training.in_round:
                    training.save()
        if config.samples:
            training.write_samples()
    finally:
        if training.board is not None:
            training.board.close()
    return config.out / WEIGHTS


@contextmanager
def _rounds_end_whole(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """Let SIGINT and SIGTERM set the event instead of tearing a round apart; a second one interrupts at once."""
    stop = threading.Event()

    def ask(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("stopping after this round; interrupt again to stop at once")

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loop(training: Training, last: int, say: Callable[[str], None], stop: threading.Event) -> None:
    config = training.config
    while training.round < last:
        phase, began = training.phase(), time.perf_counter()
        losses = training.run_round()
        seconds = time.perf_counter() - began
        rate = 2 * phase.batch * sum(config.task_steps(task) for task in losses) / seconds
        left = (last - training.round) * seconds / 60
        line = "  ".join(f"{task} {terms['total']:.3f}" for task, terms in losses.items())
        say(f"round {training.round:5d}/{config.rounds}  {line}  {rate:.1f} images/s  {left:.0f} min left")
        if training.processes.is_first:
            record = {"round": training.round, "losses": losses, "images_per_s": round(rate, 2)}
            with (config.out / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
        if training.board is not None:
            training.board.round(training.round, losses, learning_rate(config, training.round - 1))
        if training.processes.any(stop.is_set()):
            raise KeyboardInterrupt
        if training.round % config.checkpoint_every == 0:
            training.save()
        if config.samples and training.round % config.sample_every == 0:
            training.write_samples()


if __name__ == "__main__":
    from tcmoa_runtime.cli import run as command

    sys.exit(command(["train", *sys.argv[1:]]))
