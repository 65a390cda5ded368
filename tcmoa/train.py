"""Training: one step per task in turn, EMA that is applied, checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tcmoa.config import Phase, TrainConfig, read_config
from tcmoa.data import PairSampler, samplers
from tcmoa.losses import REGULARISER_WEIGHT, prompt_regulariser, task_loss, warmup_loss
from tcmoa.model import TCMoA
from tcmoa.presets import PRESETS
from tcmoa.samples import write_contact_sheet
from tcmoa.start import start_as_fusion
from tcmoa.weights import load_weights, save_weights
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame
from tcmoa_runtime.pairs import find_pairs

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"

ADAPTED = (".moas.", ".biases.")
"""What an MAE checkpoint does not hold, by parts of parameter names: trainable with a frozen backbone."""


def _say(message: str) -> None:
    print(message, flush=True)


def build_model(config: TrainConfig) -> TCMoA:
    """The model at step 0, with gradients only where the configuration trains."""
    torch.manual_seed(config.seed)
    if config.start in ("fusion", "random"):
        model = TCMoA(PRESETS[config.preset])
        if config.start == "fusion":
            try:
                start_as_fusion(model, config.seed)
            except ValueError as error:
                raise InputError(f"start 'fusion' does not fit preset '{config.preset}': {error}") from error
    else:
        model = load_weights(config.start)
    model.train_for(config.train_for)
    unused = ("cls_token", "pos_embed", "decoder_pos_embed")
    for name, parameter in model.named_parameters():
        adapted = any(part in name for part in ADAPTED)
        parameter.requires_grad_(name not in unused and (adapted or not config.freeze_backbone))
    return model


def parameter_groups(model: TCMoA, config: TrainConfig) -> list[dict[str, Any]]:
    """AdamW groups: no weight decay on biases, norms and scalars; `moa_lr_factor` on what is adapted."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (parameter.dim() > 1, any(part in name for part in ADAPTED))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "factor": config.moa_lr_factor if adapted else 1.0,
        }
        for (decays, adapted), parameters in groups.items()
    ]


def learning_rate(config: TrainConfig, round_: int) -> float:
    """Linear warm-up, then cosine to `min_lr`."""
    if round_ < config.warmup_rounds:
        return config.lr * (round_ + 1) / config.warmup_rounds
    share = (round_ - config.warmup_rounds) / max(1, config.rounds - config.warmup_rounds)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * share))


class Average:
    """Exponential moving average of the trainable parameters, started at their first values."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present parameters."""
        for name, parameter in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(parameter, 1 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the averages into the model for the length of a with-block."""
        own = {n: p.detach().clone() for n, p in model.named_parameters() if n in self.values}
        model.load_state_dict(self.values, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)


class Training:
    """A run: model, optimiser, average and the number of finished rounds."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.model = build_model(config)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, config), betas=config.betas)
        self.average = Average(self.model, config.ema)
        self.round = 0
        self.in_round = False  # between rounds all that is saved belongs together
        for crop in (phase.crop for phase in config.phases):
            if crop % self.model.window_pixels:
                raise InputError(
                    f"crop {crop} in 'phases': expected a multiple of {self.model.window_pixels}"
                )
        self.samplers: dict[str, PairSampler] = samplers(
            config.pairs, self.model.sizes.tasks, synthetic=config.synthetic, seed=config.seed
        )

    def phase(self) -> Phase:
        """The phase that the next round belongs to."""
        share = self.round / self.config.rounds
        return next(phase for phase in self.config.phases if share < phase.until)

    def run_round(self) -> dict[str, dict[str, float]]:
        """One step per task; losses by task and name, all as weighted."""
        config, phase = self.config, self.phase()
        self.in_round = True
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.round) * group["factor"]
        losses = {}
        for stream, (task, sampler) in enumerate(self.samplers.items()):
            # The routers' noise, like the crops, is a function of seed, round and task: resuming is exact.
            torch.manual_seed((config.seed * 1_000_003 + self.round) * 16 + stream)
            x, y = sampler.batch(self.round, phase.crop, phase.batch)
            losses[task] = self._step(task, x, y)
        self.average.update(self.model)
        self.round += 1
        self.in_round = False
        return losses

    def _step(self, task: str, x: Tensor, y: Tensor) -> dict[str, float]:
        config = self.config
        result = self.model(x, y, task)
        loss_of = warmup_loss if self.round < config.averaging_rounds else task_loss
        terms = loss_of(task, x, y, result.image)
        regulariser = prompt_regulariser(result.prompts, self.model.sizes.encoder_moas)
        terms["prompts"] = REGULARISER_WEIGHT[task] * regulariser
        # Published: divided by (epoch + 1); here an epoch is a twentieth of the run, as there were twenty.
        terms["balance"] = config.balance * result.imbalance / (20 * self.round // config.rounds + 1)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"loss of {task} is {total.item()} in round {self.round}")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_((p for p in self.model.parameters() if p.requires_grad), config.clip)
        self.optimizer.step()
        return {"total": total.item(), **{name: term.item() for name, term in terms.items()}}

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each beside its place and renamed."""
        target = self.config.out / CHECKPOINT
        partial = target.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.values,
                "optimizer": self.optimizer.state_dict(),
                "round": self.round,
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

    def resume(self) -> None:
        """Go on from the checkpoint in `out`; InputError when it is unreadable or of another configuration."""
        path = self.config.out / CHECKPOINT
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            stored = dict(json.loads(state["config"]))
        except Exception as error:  # damaged pickles end in any of them: IndexError, struct.error, ...
            raise InputError(f"{path}: cannot be resumed from: {error}".splitlines()[0]) from error
        wanted = resumable(self.config)
        changed = [key for key in wanted if stored.get(key) != wanted[key]]
        if changed:
            key = changed[0]
            raise InputError(
                f"{path}: made with {key} = {stored.get(key)!r}, now {wanted[key]!r}; "
                f"restore it or start anew in another 'out'"
            )
        self.model.load_state_dict(state["model"])
        self.average.values = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.round = state["round"]

    def write_samples(self) -> None:
        """Fuse the sample pairs with the averaged weights into one contact sheet in `out`."""
        rows = []
        for task, folder in self.config.samples.items():
            for pair in find_pairs(folder)[:2]:
                rows.append((task, read_frame(pair.x), read_frame(pair.y)))
        with self.average.applied(self.model):
            write_contact_sheet(self.model, rows, self.config.out / f"samples-{self.round:06d}.jpg")


def resumable(config: TrainConfig) -> dict[str, Any]:
    """The settings that must be equal for a resumed run to equal an uninterrupted one."""
    free = ("out", "checkpoint_every", "sample_every", "samples", "threads", "pairs")
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
    after the round in progress, saved; a second one at once, back to the last checkpoint.
    Raises InputError on a wrong configuration, unreadable data, or an `out` that holds another run.
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
    training = Training(config)
    if resume:
        training.resume()
    config.out.mkdir(parents=True, exist_ok=True)
    last = config.rounds if rounds is None else min(config.rounds, rounds)
    trainable = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
    say(f"training {trainable:,} parameters, rounds {training.round} to {last} of {config.rounds}")
    with _rounds_end_whole(say) as stop:
        try:
            _loop(training, last, say, stop)
        finally:
            if not training.in_round:
                training.save()
    if config.samples:
        training.write_samples()
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
    with (config.out / LOG).open("a", encoding="utf-8") as log:
        while training.round < last:
            phase, began = training.phase(), time.perf_counter()
            losses = training.run_round()
            seconds = time.perf_counter() - began
            rate = 2 * phase.batch * len(losses) / seconds
            left = (last - training.round) * seconds / 60
            line = "  ".join(f"{task} {terms['total']:.3f}" for task, terms in losses.items())
            say(
                f"round {training.round:5d}/{config.rounds}  {line}  {rate:.1f} images/s  {left:.0f} min left"
            )
            record = {"round": training.round, "losses": losses, "images_per_s": round(rate, 2)}
            log.write(json.dumps(record) + "\n")
            log.flush()
            if stop.is_set():
                raise KeyboardInterrupt
            if training.round % config.checkpoint_every == 0:
                training.save()
            if config.samples and training.round % config.sample_every == 0:
                training.write_samples()
