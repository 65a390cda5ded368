"""A run's state and its steps: rounds over the tasks, averaged weights, checkpoints that resume exactly."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from torch import Tensor

from tcmoa.checkpoint_files import AVERAGE_KEY, SIZES_KEY
from tcmoa.config import Phase, TrainConfig
from tcmoa.data import Augmentation, PairSampler, create_samplers
from tcmoa.ema import ExponentialMovingAverage
from tcmoa.initial_model import build_model
from tcmoa.losses import REGULARIZER, STRIP, WARMUP, prompt_regularizer, weighted_terms
from tcmoa.mixed_precision import MixedPrecision
from tcmoa.model import to_luma
from tcmoa.presets import SOURCE_WEIGHTS
from tcmoa.processes import Processes
from tcmoa.sample_images import write_contact_sheet
from tcmoa.teachers import NO_TEACHERS, Teachers, teacher_terms
from tcmoa.tensorboard_log import TensorBoardLog
from tcmoa.trainable import parameter_groups
from tcmoa.twins import TWIN_TERMS, make_twins, steer, twin_terms
from tcmoa.weights import save_weights
from tcmoa_runtime.contract import PATCH
from tcmoa_runtime.errors import InputError, first_line
from tcmoa_runtime.log import log_step
from tcmoa_runtime.pairs import find_pairs, read_frame_pair
from tcmoa_runtime.partial import partial_file
from tcmoa_runtime.typing import JsonObject, OnMessage, Teacher

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


def learning_rate(config: TrainConfig, round_: int) -> float:
    """Return the learning rate of a round: linear warm-up, then cosine decay to `min_lr`."""
    if round_ < config.warmup_rounds:
        return config.lr * (round_ + 1) / config.warmup_rounds
    share = (round_ - config.warmup_rounds) / max(1, config.rounds - config.warmup_rounds)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * share))


def find_teachers(config: TrainConfig, known: Teachers) -> dict[str, Teacher]:
    """Return the teacher of each trained task that has one.

    Raises:
        InputError: A teacher is unknown.
    """
    found: dict[str, Teacher] = {}
    for task, name in config.teachers.items():
        if name not in known:
            raise InputError(
                f"{name!r}; expected one of {', '.join(known)}"
                if known
                else f"{name!r}; expected no teacher, as none were passed",
                subject=f"[teachers] of {task}",
                remedy=None if known else "Pass {teachers}",
                settings=None if known else {"teachers": ...},
            )
        if task in config.trained_pairs:
            found[task] = known[name]
    return found


class Trainer:
    """The state of a run: model, optimizer, averaged weights, and the number of finished rounds.

    Args:
        config: The configuration.
        processes: The processes that share each batch; one by default.
        on_message: Called with the parameters that were loaded and the number of parameters.
        teachers: What [teachers] of the configuration may name.

    Raises:
        InputError: The configuration does not fit the model, the processes, the data or the teachers.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes | None = None,
        on_message: OnMessage = log_step,
        *,
        teachers: Teachers = NO_TEACHERS,
    ) -> None:
        self.config = config
        own_teachers = find_teachers(config, teachers)
        self.processes = processes or Processes()
        self.model = build_model(config, on_message).to(self.processes.device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, config), betas=config.betas)
        self.precision = MixedPrecision(config.amp, self.processes.device)
        self.ema = ExponentialMovingAverage(self.model, config.ema)
        self.tensorboard: TensorBoardLog | None = None
        self.round = 0
        self.in_round = False  # a checkpoint is consistent only between rounds
        self._check_phases()
        self._check_seams()
        self.samplers: dict[str, PairSampler] = create_samplers(
            config.trained_pairs,
            self.model.sizes.tasks,
            synthetic=config.synthetic,
            seed=config.seed,
            augmentation=Augmentation(config.tones, config.exchanges),
            teachers=own_teachers,
        )
        self.forward = self.processes.wrap(self.model)

    def _check_phases(self) -> None:
        window, count = self.model.window_pixels, self.processes.count
        for phase in self.config.phases:
            if phase.crop % window:
                raise InputError(f"crop is {phase.crop}; expected a multiple of {window}", subject="'phases'")
            if phase.crop % PATCH and "mff" in self.config.trained_pairs:
                raise InputError(
                    f"crop is {phase.crop}; expected a multiple of {PATCH}, as mff compares patches",
                    subject="'phases'",
                )
            if phase.batch % count:
                raise InputError(
                    f"batch is {phase.batch}; expected a multiple of {count}, the number of processes",
                    subject="'phases'",
                )

    def _check_seams(self) -> None:
        window, shift = self.model.window_pixels, self.model.shift_pixels
        uses_seams = any("seams" in self.config.image_losses(task) for task in self.config.trained_pairs)
        if uses_seams and (window % STRIP or shift % STRIP):
            raise InputError(
                f"windows of {window} pixels, shifted by {shift}; expected multiples of {STRIP}",
                subject="'seams' in [losses]",
                remedy="Remove 'seams', or change patch_size in [sizes]",
            )

    def phase(self) -> Phase:
        """Return the phase of the next round."""
        share = self.round / self.config.rounds
        return next(phase for phase in self.config.phases if share < phase.until)

    def run_round(self) -> dict[str, dict[str, float]]:
        """Run the steps of each task.

        Returns:
            The weighted losses by task and name, averaged over the steps of the task and over all processes.
        """
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
            step_losses = []
            for step in range(self.round * steps, (self.round + 1) * steps):
                # Like the crops, the routers' noise is a function of seed, step, task and process: resuming is exact.
                torch.manual_seed(self._noise_seed(step, stream))  # seeds the generators of all devices
                batch = sampler.batch(step, phase.crop, count, part).to(self.processes.device)
                step_losses.append(self._step(task, *batch))
            losses[task] = {
                name: sum(terms[name] for terms in step_losses) / steps for name in step_losses[0]
            }
        self.ema.update(self.model)
        self.round += 1
        self.in_round = False
        return losses

    def _noise_seed(self, step: int, stream: int) -> int:
        if self.processes.is_first:
            return (self.config.seed * 1_000_003 + step) * 16 + stream
        entropy = (self.config.seed, step, stream, self.processes.rank)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _step(self, task: str, x: Tensor, y: Tensor, target: Tensor | None = None) -> dict[str, float]:
        config, sizes = self.config, self.model.sizes
        if sizes.output == SOURCE_WEIGHTS:  # the losses compare luma too
            x, y = (to_luma(source).expand(-1, 3, -1, -1) for source in (x, y))
        twins = x.shape[0] > 1 and bool(torch.rand(()) < config.twins)
        if twins:
            x, y, *targets = make_twins((x, y) if target is None else (x, y, target))
            target = targets[0] if targets else None
        shift = 0.0
        if target is not None and torch.rand(()) < config.steering:
            shift, target = steer(x, y, target)
        with self.precision.autocast():
            result = self.forward(x, y, task, shift=shift)
        weights = WARMUP[task] if self.round < config.averaging_rounds else config.image_losses(task)
        borders = {"window": self.model.window_pixels, "shift": self.model.shift_pixels}
        terms = weighted_terms(weights, x, y, result.image.float(), **borders)
        if target is not None:
            terms |= teacher_terms(config.teacher_losses(task), result, target, sizes)
        if config.twins:
            # Other steps count as without flicker: all steps and processes have the same terms.
            none = dict.fromkeys(TWIN_TERMS, x.new_zeros(()))
            terms |= twin_terms(x, y, result.image.float()) if twins else none
        regularizer = prompt_regularizer(result.prompts, sizes.encoder_moas)
        terms[REGULARIZER] = config.regularizer_weight(task) * regularizer
        # Published: divided by (epoch + 1), in 20 epochs; here an epoch is a twentieth of the run.
        terms["balance"] = config.balance * result.imbalance / (20 * self.round // config.rounds + 1)
        total = torch.stack(list(terms.values())).sum()
        if self.processes.any(not torch.isfinite(total)):
            raise FloatingPointError(f"loss of {task} is {total.item()} in round {self.round}")
        self.precision.step(total, self.model, self.optimizer, config.clip)
        if self.tensorboard is not None:
            self.tensorboard.write_step(task, result.prompts, self.round + 1)
        shown = self.processes.mean(torch.stack([total, *terms.values()]).detach())
        return dict(zip(("total", *terms), shown.tolist(), strict=True))

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each under a temporary name and renamed.

        Only the first process writes.
        """
        if not self.processes.is_first:
            return
        state = {
            "model": self.model.state_dict(),
            AVERAGE_KEY: self.ema.values,
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": self.precision.state_dict(),
            "round": self.round,
            "processes": self.processes.count,
            "device": self.processes.device.type,
            "config": json.dumps(resumable(self.config)),
            SIZES_KEY: json.dumps(self.model.sizes.to_dict()),
        }
        with partial_file(self.config.out / CHECKPOINT) as partial:
            torch.save(state, partial)
        with self.ema.applied(self.model):
            save_weights(
                self.model,
                self.config.out / WEIGHTS,
                notes={"rounds": str(self.round), "config": json.dumps(self.config.to_dict())},
            )

    def resume(self, on_message: OnMessage = log_step) -> None:
        """Restore the checkpoint in `out`.

        Args:
            on_message: Called if the checkpoint was made on another type of device.

        Raises:
            InputError: The checkpoint is unreadable, or belongs to another configuration or number of processes.
        """
        path = self.config.out / CHECKPOINT
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            stored = dict(json.loads(state["config"]))
        except Exception as error:  # damaged pickles raise various types: IndexError, struct.error, ...
            raise InputError(f"cannot be resumed: {first_line(error)}", subject=path) from error
        # A checkpoint that is older than a setting was made with its default.
        stored = {**resumable(TrainConfig(pairs={})), **stored}
        current = resumable(self.config)
        changed = [key for key in current if stored[key] != current[key]]
        if changed:
            key = changed[0]
            raise InputError(
                f"made with {key} = {stored[key]!r}; expected {current[key]!r} as in the configuration",
                subject=path,
                remedy=f"Restore {key} in the configuration, or start a new run in another {{out}}",
                settings={"out": ...},
            )
        count = state.get("processes", 1)
        if count != self.processes.count:
            raise InputError(
                f"made by {count} processes; expected {self.processes.count}, the number of processes now",
                subject=path,
                remedy=f"Resume with torchrun and {count} processes, or start a new run in another {{out}}",
                settings={"out": ...},
            )
        device = self.processes.device
        if state.get("device", device.type) != device.type:
            on_message(
                f"the checkpoint was made on {state['device']} and continues on {device.type}; rounding differs"
            )
        self.model.load_state_dict(state["model"])
        self.ema.values = {name: value.to(device) for name, value in state[AVERAGE_KEY].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state.get("loss_scale", {}))
        self.round = state["round"]

    def write_samples(self) -> None:
        """Fuse the sample pairs with the averaged weights and write a contact sheet; only the first process writes."""
        if not self.processes.is_first:
            return
        rows = []
        for task, folder in self.config.samples.items():
            for pair in find_pairs(folder)[:2]:
                rows.append((task, *read_frame_pair(pair)))
        with self.ema.applied(self.model):
            target = self.config.out / f"samples-{self.round:06d}.jpg"
            write_contact_sheet(self.model, rows, target)
        if self.tensorboard is not None:
            self.tensorboard.write_image(target, self.round)


def resumable(config: TrainConfig) -> JsonObject:
    """Return the settings that must not change when a run is resumed, so that it equals an uninterrupted one."""
    free = ("out", "checkpoint_every", "sample_every", "samples", "threads", "pairs", "device", "tensorboard")
    return {key: value for key, value in config.to_dict().items() if key not in free}
