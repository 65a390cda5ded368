"""From a float32 bundle and real pairs to one in 8 bits: observe, smooth, choose ranges, keep what suffers, write."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from tcmoa_calibration.quantize.formats import FORMATS, Format
from tcmoa_calibration.quantize.judge import Budget, Damage, Judge, Memo, samples_key
from tcmoa_calibration.quantize.linears import Linear, backbone_linears, groups_of
from tcmoa_calibration.quantize.observe import Observed, observe
from tcmoa_calibration.quantize.ranges import METHODS, range_end
from tcmoa_calibration.quantize.rewrite import finish, quantise, share_tables
from tcmoa_calibration.quantize.smoothing import smooth
from tcmoa_calibration.samples import Samples, aligned, read_samples
from tcmoa_runtime import __version__
from tcmoa_runtime.bundle import GRAPH, Bundle
from tcmoa_runtime.bundle_write import check_target, list_files, new_bundle, write_manifest
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.pairs import PairPaths

CALIBRATION_VERSION: Final = 1
"""Part of what measurements are known by: raised when this package measures or quantises differently."""

MOST_BYTES: Final = 1_900_000_000
"""Graphs are handed over as one protocol buffer, which ends at 2 GiB."""
LEAST_PAIRS: Final = 4
LEAST_TO_CLIP: Final = 6
"""Pairs held out, below which `auto` clips nothing: what a few pairs do not show would be cut off unseen."""
MOST_LEFT: Final = 0.5
"""Of the error without clipping, up to which `auto` clips. On exposures of `val` a percentile that was 2.4 dB better on
eight pairs held out lost 8 dB on another pair, whose brightest channels no pair had shown."""
STRENGTHS: Final = (0.0, 0.35, 0.5, 0.65)
"""Of smoothing, that `auto` tries; 0 is none."""
DEFAULT_BUDGET: Final = Budget(min_psnr=45.0)

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with the steps that are done, and with how many there are by now known to be."""


@dataclass(frozen=True)
class Step:
    """A point of the trade-off: how many groups are in 8 bits, their share of the backbone's multiplications, and what
    that costs.
    """

    quantised_groups: int
    share: float
    damage: Damage


@dataclass(frozen=True)
class Calibration:
    """What was found. `kept`: groups that stay in float32, the one that suffers most first. `sensitivity`: damage of
    each group alone, empty where it was not needed. `tried`: damage of all groups by smoothing and ranges.
    """

    bundle: Bundle
    smoothing: float
    ranges: str
    damage: Damage
    kept: list[str]
    groups: int
    linears: int
    tried: dict[str, Damage]
    sensitivity: dict[str, Damage]
    curve: list[Step]
    samples: Samples
    bytes_before: int
    bytes_after: int


def calibrate_low_precision(
    bundle: Bundle | str | os.PathLike[str],
    pairs: Sequence[PairPaths],
    out: str | os.PathLike[str],
    *,
    number_format: str = "int8",
    budget: Budget = DEFAULT_BUDGET,
    smoothing: float | None = None,
    ranges: str = "auto",
    sensitivity: bool = False,
    most_pairs: int = 24,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = lambda _: None,
    progress: Progress = lambda _done, _of: None,
) -> Calibration:
    """Quantise the backbone's linears of a float32 `bundle` and write the result as a new bundle to `out`.

    pairs: real pairs of the bundle's task; `most_pairs` of them are used, a third of those only to judge by.
    number_format: `int8`, or `fp8` (E4M3), which CPUs run as a slow simulation. budget: what the picture may lose;
    groups (half blocks) are kept in float32, the one that suffers most first, until it holds. smoothing: strength of
    `smoothing.smooth`, or None to try `STRENGTHS`. ranges: one of `ranges.METHODS`, or `auto` to try all (`max` alone
    where fewer than `LEAST_TO_CLIP` pairs are held out), of which one that clips must halve the error.
    sensitivity: measure each group and the whole trade-off even if the budget holds with all groups.

    The same bundle, pairs, options and seed give the same graph. What was measured is kept in a file beside `out` until
    the bundle stands, so that an interrupted run goes on where it was.

    Raises InputError on wrong options, too few usable pairs, a bundle that is not float32, an `out` that must not be
    replaced, and a budget that cannot be held, with the best that can; BundleError on a damaged bundle. Nothing is
    written then.
    """
    source = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    target = Path(out)
    _check(source, number_format, smoothing, ranges)
    check_target(target, overwrite=overwrite)
    source.check()
    size = (source.contract.height, source.contract.width)
    samples = aligned(source, read_samples(pairs, size, most=most_pairs, least=LEAST_PAIRS, seed=seed))
    for line in samples.skipped:
        say(f"left out {line}")
    run = _Run(source, target, FORMATS[number_format], samples, seed, say, progress)
    run.observe()
    strength, method = run.choose(smoothing, ranges)
    run.allocate(budget, strength, method, sensitivity=sensitivity)
    written = run.write(budget, strength, method)
    return run.result(written, strength, method)


def _check(bundle: Bundle, number_format: str, smoothing: float | None, ranges: str) -> None:
    if number_format not in FORMATS:
        raise InputError(f"format is {number_format!r}: expected one of {', '.join(FORMATS)}")
    if bundle.precision in FORMATS:
        raise InputError(
            f"{bundle.path}: is {bundle.precision} already; calibrate the float32 bundle that it came from"
        )
    if bundle.precision != "fp32":
        raise InputError(
            f"{bundle.path}: is {bundle.precision}, expected a float32 bundle: export it with --precision fp32"
        )
    size = sum(entry["bytes"] for entry in bundle.files.values())
    if size > MOST_BYTES:
        raise InputError(
            f"{bundle.path}: holds {size / 1e9:.1f} GB, and graphs beyond {MOST_BYTES / 1e9:g} GB cannot be quantised "
            f"here: export a smaller model"
        )
    if smoothing is not None and not 0 <= smoothing < 1:
        raise InputError(f"smoothing is {smoothing:g}: expected a number from 0 (none) to below 1")
    if ranges != "auto" and ranges not in METHODS:
        raise InputError(f"ranges are {ranges!r}: expected auto or one of {', '.join(METHODS)}")


class _Run:
    """One calibration on its way."""

    def __init__(
        self,
        source: Bundle,
        target: Path,
        number_format: Format,
        samples: Samples,
        seed: int,
        say: Say,
        progress: Progress,
    ) -> None:
        self.source, self.target, self.format, self.samples = source, target, number_format, samples
        self.seed, self.say, self.progress = seed, say, progress
        self.model = onnx.load(source.graph_path)
        self.linears = backbone_linears(self.model)
        self.groups = groups_of(self.linears)
        self.work = {
            name: sum(linear.channels[0] * linear.channels[1] for linear in members)
            for name, members in self.groups.items()
        }
        key = json.dumps(
            [
                CALIBRATION_VERSION,
                source.files[GRAPH]["sha256"],
                number_format.name,
                samples_key(samples.fit),
                samples_key(samples.held),
                source.default_prompt,
                seed,
            ]
        )
        memo_path = target.parent / f".{target.name}.calibration"
        self.memo = Memo(memo_path, hashlib.sha256(key.encode()).hexdigest())
        self.judge = Judge(source, samples.held, self.memo)
        self.observed: dict[str, Observed] = {}
        self.tried: dict[str, Damage] = {}
        self.sensitivity: dict[str, Damage] = {}
        self.curve: dict[int, Step] = {}
        self.kept: list[str] = []
        self.damage: Damage | None = None
        self.done, self.of = 0, len(samples.fit)

    def tick(self) -> None:
        self.done += 1
        self.progress(self.done, max(self.of, self.done))

    def observe(self) -> None:
        self.say(f"observing {len(self.linears)} linears on {len(self.samples.fit)} pairs")
        self.observed = observe(self.model, self.source, self.samples.fit, self.linears, self.seed, self.tick)

    def build(self, strength: float, method: str, groups: Sequence[str]) -> onnx.ModelProto:
        """The graph with `groups` in 8 bits; weights of others are as they were but for smoothing."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        observed = (
            smooth(model, self.linears, self.observed, strength) if strength > 0 else dict(self.observed)
        )
        chosen = set(groups)
        linears: list[Linear] = [x for x in backbone_linears(model) if x.group in chosen]
        ends = {name: range_end(observed[name], method, self.format) for name in {x.source for x in linears}}
        quantise(model, linears, ends, self.format)
        return model

    def measure(self, strength: float, method: str, groups: Sequence[str]) -> Damage:
        name = f"{strength:g} {method} {' '.join(sorted(groups))}"
        damage = self.judge.damage(name, lambda: self.build(strength, method, groups))
        self.tick()
        return damage

    def choose(self, smoothing: float | None, ranges: str) -> tuple[float, str]:
        """Smoothing first, with nothing clipped; then ranges with the best smoothing."""
        strengths = STRENGTHS if smoothing is None else (smoothing,)
        first = "max" if ranges == "auto" else ranges
        methods = METHODS if ranges == "auto" else (ranges,)
        if ranges == "auto" and len(self.samples.held) < LEAST_TO_CLIP:
            methods = (first,)
            self.say(
                f"{len(self.samples.held)} pairs held out: ranges that clip are not tried below {LEAST_TO_CLIP}"
            )
        self.of += len(strengths) + len(methods) - 1
        everything = list(self.groups)

        def try_one(strength: float, method: str) -> Damage:
            damage = self.measure(strength, method, everything)
            self.tried[f"smoothing {strength:g}, ranges {method}"] = damage
            self.say(f"smoothing {strength:g}, ranges {method}: {damage.line()}")
            return damage

        by_strength = {strength: try_one(strength, first) for strength in strengths}
        best = min(strengths, key=lambda s: by_strength[s].mean_square)
        by_method = {first: by_strength[best]}
        for method in methods:
            if method != first:
                by_method[method] = try_one(best, method)
        chosen = min(methods, key=lambda m: by_method[m].mean_square)
        if ranges == "auto" and by_method[chosen].mean_square > by_method[first].mean_square * MOST_LEFT:
            chosen = first
        return best, chosen

    def point(self, strength: float, method: str, order: Sequence[str], kept: int) -> Step:
        """The trade-off with the first `kept` groups of `order` in float32."""
        if kept not in self.curve:
            groups = order[kept:]
            damage = self.measure(strength, method, groups)
            share = sum(self.work[g] for g in groups) / sum(self.work.values())
            self.curve[kept] = Step(len(groups), share, damage)
            self.say(f"{len(groups)} of {len(order)} groups in {self.format.name}: {damage.line()}")
        return self.curve[kept]

    def allocate(self, budget: Budget, strength: float, method: str, *, sensitivity: bool) -> None:
        """Find the fewest groups to keep in float32, those that suffer most first."""
        everything = list(self.groups)
        whole = self.point(strength, method, everything, 0)
        self.damage = whole.damage
        if budget.holds(whole.damage) and not sensitivity:
            return
        self.of += len(everything)
        for group in everything:
            self.sensitivity[group] = self.measure(strength, method, [group])
            self.say(f"{group} alone: {self.sensitivity[group].line()}")
        order = sorted(everything, key=lambda g: -self.sensitivity[g].mean_square)
        if sensitivity:
            for kept in {round(len(order) * part / 8) for part in range(8)}:
                self.point(strength, method, order, kept)
        least, most = 0, len(order) - 1
        if not budget.holds(self.point(strength, method, order, most).damage):
            last = self.curve[most].damage
            raise InputError(
                f"the budget ({budget.line()}) cannot be held: all groups in {self.format.name} give "
                f"{whole.damage.line()}, the least sensitive one alone {last.line()}; nothing was written: allow more"
            )
        while least < most:  # more groups in float32 are taken to be no worse
            middle = (least + most) // 2
            if budget.holds(self.point(strength, method, order, middle).damage):
                most = middle
            else:
                least = middle + 1
        self.kept, self.damage = order[:most], self.point(strength, method, order, most).damage

    def write(self, budget: Budget, strength: float, method: str) -> Bundle:
        groups = [g for g in self.groups if g not in self.kept]
        self.say(f"writing {self.target}")
        model = self.build(strength, method, groups)
        share_tables(model)
        stem = self.source.graph_name.rsplit("_", 1)[0]
        finish(model, f"{stem}_{self.format.name}")
        assert self.damage is not None  # `allocate` came before
        damage = self.damage
        manifest: dict[str, Any] = {
            **self.source.manifest,
            "precision": self.format.name,
            "graph": {
                **self.source.manifest["graph"],
                "name": model.graph.name,
                "nodes": len(model.graph.node),
                "constants": _constants(model),
            },
            "parity": {
                "frames": len(self.samples.held),
                "pictures": [sample.name for sample in self.samples.held],
                "backend": "onnxruntime (CPU)",
                "max_difference": damage.max_difference,
                "differing": damage.differing,
                "beyond_one": damage.beyond_one,
                "psnr_db": None if damage.mean_square == 0 else round(damage.psnr_db, 2),
                "prompt_difference": None,
            },
            "quantisation": {
                "version": CALIBRATION_VERSION,
                "format": self.format.name,
                "against": {"graph": self.source.graph_name, "sha256": self.source.files[GRAPH]["sha256"]},
                "smoothing": strength,
                "ranges": method,
                "groups": len(self.groups),
                "kept_float32": self.kept,
                "linears": sum(len(self.groups[g]) for g in groups),
                "psnr_db": None if damage.mean_square == 0 else round(damage.psnr_db, 2),
                "worst_psnr_db": None if damage.worst_mean_square == 0 else round(damage.worst_psnr_db, 2),
                "qabf_drop": round(damage.qabf_drop, 6),
                "budget": {"min_psnr": budget.min_psnr, "max_qabf_drop": budget.max_qabf_drop},
                "fit_pairs": [sample.name for sample in self.samples.fit],
                "held_pairs": [sample.name for sample in self.samples.held],
                "seed": self.seed,
            },
            "tools": {
                "tcmoa": __version__,
                **{name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime", "numpy")},
            },
        }
        with new_bundle(self.target) as partial:
            (partial / GRAPH).write_bytes(model.SerializeToString())
            list_files(partial, manifest)
            write_manifest(partial, manifest)
            Bundle.open(partial)
        self.memo.forget()
        return Bundle.open(self.target)

    def result(self, written: Bundle, strength: float, method: str) -> Calibration:
        assert self.damage is not None  # as above
        return Calibration(
            written,
            strength,
            method,
            self.damage,
            self.kept,
            len(self.groups),
            written.manifest["quantisation"]["linears"],
            self.tried,
            self.sensitivity,
            [self.curve[kept] for kept in sorted(self.curve)],
            self.samples,
            sum(entry["bytes"] for entry in self.source.files.values()),
            sum(entry["bytes"] for entry in written.files.values()),
        )


def _constants(model: onnx.ModelProto) -> dict[str, int]:
    """Numbers stored in the graph by type."""
    names = {"float": "fp32", "float16": "fp16", "float8e4m3fn": "fp8"}
    counts: dict[str, int] = {}
    for tensor in model.graph.initializer:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        size = 1
        for side in tensor.dims:
            size *= side
        counts[names.get(kind, kind)] = counts.get(names.get(kind, kind), 0) + size
    return counts
