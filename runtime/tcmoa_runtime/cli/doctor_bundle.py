"""What `tcmoa doctor` reports about a bundle and its engines: load, rebuild or refuse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.engine import FLAVORS, LOCAL_TARGET, PRECISIONS, Engine, engine_stem
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.engine_trust import is_built_here
from tcmoa_runtime.errors import BundleError, InputError, TcmoaError, first_line
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.log import silenced_log
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.typing import BackendChoice, Flavor, JsonObject, Precision

Verdict: TypeAlias = Literal["load", "rebuild", "refuse"]

_STEM: Final = re.compile(rf"({'|'.join(FLAVORS)})-([^-]+)-([^-]+)-({'|'.join(PRECISIONS)})")


@dataclass(frozen=True)
class FlavorStatus:
    """What a flavor of TensorRT can do on this machine.

    Attributes:
        version: Installed version; None if the library cannot be imported.
        targets: GPUs that it builds for, e.g. `sm89`; empty if it does not say.
        builds: Whether it can build engines here.
        runs: Whether it can run engines here.
        why: Why it cannot do one of them.
        crash: The error if importing it ends the process.
    """

    version: str | None = None
    targets: tuple[str, ...] = ()
    builds: bool = False
    runs: bool = False
    why: str | None = None
    crash: TcmoaError | None = None

    def to_json(self) -> JsonObject:
        """Return what `--json` prints."""
        return {"version": self.version, "builds": self.builds, "runs": self.runs, "why": self.why}


@dataclass(frozen=True)
class EngineReport:
    """The verdict on an engine.

    Attributes:
        path: The engine.
        verdict: `load`: it runs here. `rebuild`: it is damaged, or was built by another version or for another GPU.
            `refuse`: it is sound, but this machine does not run it, or another engine is used in its place.
        why: The reason for the verdict.
        remedy: What to run, None if there is nothing to do.
        blocks: Whether `auto` fails because of this engine, whatever else is in the bundle.
        engine: Its description, None if that cannot be read.
    """

    path: Path
    verdict: Verdict
    why: str
    remedy: str | None = None
    blocks: bool = False
    engine: Engine | None = None

    def to_json(self) -> JsonObject:
        """Return what `--json` prints."""
        return {"file": self.path.name, "verdict": self.verdict, "why": self.why, "remedy": self.remedy}


@dataclass(frozen=True)
class BundleReport:
    """The verdict on a bundle.

    Attributes:
        verdict: `load`: `auto` loads it. `rebuild`: the bundle is sound, but an engine has to be built again. `refuse`:
            the bundle is damaged, or `auto` does not load it.
        why: The reason for the verdict.
        remedy: What to do, None if there is nothing to do.
        engines: Its engines.
    """

    verdict: Verdict
    why: str
    remedy: str | None = None
    engines: Sequence[EngineReport] = field(default_factory=tuple)

    def to_json(self) -> JsonObject:
        """Return what `--json` prints."""
        return {
            "verdict": self.verdict,
            "why": self.why,
            "remedy": self.remedy,
            "engines": [engine.to_json() for engine in self.engines],
        }


@dataclass(frozen=True)
class _Trial:
    """An attempt to load a backend: the name of the loaded one, or the error."""

    name: str = ""
    error: TcmoaError | None = None


def examine_bundle(
    path: Path,
    flavors: Mapping[Flavor, FlavorStatus],
    gpu: CudaDevice | None,
    problems: list[TcmoaError],
) -> BundleReport:
    """Examine a bundle: its hashes, its engines, and which backend loads it.

    Args:
        path: Folder of the bundle.
        flavors: State of TensorRT on this machine.
        gpu: The GPU that is used, None without one.
        problems: Faults of libraries are added to it.
    """
    engines: list[EngineReport] = []
    try:
        bundle = Bundle.open(path)
        engines = _examine_engines(bundle, flavors, gpu)
        bundle.check()
    except BundleError as error:
        return BundleReport("refuse", error.render_problem(), _remedy_of(error), engines)
    return _examine_backends(bundle, flavors, engines, problems)


def _examine_backends(
    bundle: Bundle,
    flavors: Mapping[Flavor, FlavorStatus],
    engines: list[EngineReport],
    problems: list[TcmoaError],
) -> BundleReport:
    crash = next(
        (
            error
            for report in engines
            if report.engine is not None and (error := flavors[report.engine.flavor].crash) is not None
        ),
        None,
    )
    # A library that crashes is not imported, which `auto` would do.
    trial = _try_backend(bundle, "auto", problems) if crash is None else _Trial(error=crash)
    if trial.error is None:
        return _report_loaded(trial.name, engines)
    fallback = _try_backend(bundle, "onnxruntime", problems) if engines else trial
    failure = trial.error if crash is None or fallback.error is None else fallback.error
    engines = [_blame(report, failure) for report in engines]
    why, remedy = failure.render_problem(), _remedy_of(failure)
    runner = f"`{spell_for_command_line('backend', 'onnxruntime')}` ({fallback.name}) runs the bundle"
    stale = [report for report in engines if report.verdict == "rebuild"]
    if stale:
        until = f"until then no backend runs the bundle ({why})" if fallback.error else f"until then {runner}"
        return _report_stale(stale, until, engines)
    if fallback.error is None:
        return BundleReport("refuse", f"backend auto fails: {why}; {runner}", remedy, engines)
    if not isinstance(failure, BundleError):
        why = f"no backend runs the bundle here: {why}"
    return BundleReport("refuse", why, remedy, engines)


def _report_loaded(name: str, engines: list[EngineReport]) -> BundleReport:
    stale = [report for report in engines if report.verdict == "rebuild"]
    if stale:
        return _report_stale(stale, f"until then {name} runs the bundle", engines)
    return BundleReport("load", f"hashes and contract are correct, {name} runs it", None, engines)


def _report_stale(stale: Sequence[EngineReport], until: str, engines: list[EngineReport]) -> BundleReport:
    first = stale[0]
    more = f" ({len(stale)} engines to rebuild)" if len(stale) > 1 else ""
    return BundleReport("rebuild", f"{first.path.name}: {first.why}{more}; {until}", first.remedy, engines)


def _blame(report: EngineReport, failure: TcmoaError) -> EngineReport:
    """Change the verdict on an engine that has the right hash, but that TensorRT refused."""
    is_refused = isinstance(failure, BundleError) and failure.subject == str(report.path)
    if report.verdict != "load" or not is_refused:
        return report
    return replace(report, verdict="rebuild", why=failure.problem, remedy=_remedy_of(failure))


def _try_backend(bundle: Bundle, name: BackendChoice, problems: list[TcmoaError]) -> _Trial:
    try:
        with silenced_log():  # the report says it
            backend = load_backend(bundle, name)
        loaded_name = backend.name
        backend.close()
    except TcmoaError as error:
        return _Trial(error=error)
    except Exception as error:  # a broken library raises anything
        broken = TcmoaError(f"{type(error).__name__}: {first_line(error)}", subject=f"backend {name}")
        problems.append(broken)
        return _Trial(error=broken)
    return _Trial(loaded_name)


def _remedy_of(error: TcmoaError) -> str | None:
    return error.render_remedy(spell_for_command_line)


def _examine_engines(
    bundle: Bundle, flavors: Mapping[Flavor, FlavorStatus], gpu: CudaDevice | None
) -> list[EngineReport]:
    reports = [_examine_engine(bundle, path, flavors, gpu) for path in find_engines(bundle)]
    usable = {
        (report.engine.flavor, report.engine.precision): report.path.name
        for report in reports
        if report.verdict == "load" and report.engine is not None
    }
    return [_replaced(report, usable) for report in reports]


def _replaced(report: EngineReport, usable: Mapping[tuple[Flavor, Precision], str]) -> EngineReport:
    """Change the verdict on an engine that another one replaces, as after an upgrade or in a bundle for two GPUs."""
    if report.verdict != "rebuild" or report.blocks or report.engine is None:
        return report
    other = usable.get((report.engine.flavor, report.engine.precision))
    if other is None:
        return report
    return replace(report, verdict="refuse", why=f"{report.why}; {other} is used instead", remedy=None)


def _examine_engine(
    bundle: Bundle, path: Path, flavors: Mapping[Flavor, FlavorStatus], gpu: CudaDevice | None
) -> EngineReport:
    engine: Engine | None = None
    try:
        engine = Engine.open(bundle, path)
        engine.read()
        if engine.weights is not None:
            engine.read_weights()
    except BundleError as error:
        why = error.problem if error.subject == str(path) else error.render_problem()
        remedy = _rebuild_remedy(bundle, path, engine, flavors, blocks=True)
        return EngineReport(path, "rebuild", why, remedy, blocks=True, engine=engine)
    status = flavors[engine.flavor]
    if status.version is None:
        return EngineReport(path, "refuse", f"{status.why}", engine=engine)
    is_same_version = (
        status.version == engine.version
    )  # checked without a GPU too: the engine can be built again here
    if is_same_version and (gpu is None or not status.runs):
        return EngineReport(path, "refuse", f"{status.why}", engine=engine)
    capability = "0.0" if gpu is None else gpu.compute_capability
    mismatch = engine.mismatch(engine.flavor, status.version, capability)
    if mismatch is None:
        runs = f"runs on {'' if gpu is None else gpu.name}"
        if is_built_here(engine):
            return EngineReport(path, "load", runs, engine=engine)
        trust = spell_for_command_line("trust_engines", True)
        remedy = _rebuild_remedy(bundle, path, engine, flavors).removesuffix(".")
        return EngineReport(
            path,
            "rebuild",
            f"{runs}, but this user did not build it, and an engine is native code",
            f"{remedy}, or load it with {trust} if you trust whoever built it.",
            engine=engine,
        )
    remedy = _rebuild_remedy(bundle, path, engine, flavors, gpu if is_same_version else None)
    return EngineReport(path, "rebuild", mismatch, remedy, engine=engine)


def _rebuild_remedy(
    bundle: Bundle,
    path: Path,
    engine: Engine | None,
    flavors: Mapping[Flavor, FlavorStatus],
    gpu: CudaDevice | None = None,
    *,
    blocks: bool = False,
) -> str:
    """Say what to run for an engine in the place of this one.

    Args:
        bundle: The bundle.
        path: The engine.
        engine: Its description, None if that cannot be read.
        flavors: State of TensorRT on this machine.
        gpu: A GPU that the new engine must run on too.
        blocks: Whether the file must be removed if the new engine does not replace it.
    """
    remove, build = shlex.join(["rm", str(path)]), shlex.join(["tcmoa", "build", bundle.spelling])
    try:
        options = _options_of_name(path.stem) if engine is None else _options_of_engine(engine)
        if gpu is not None and options.flavor == "rtx":
            options = replace(options, targets=(*options.targets, gpu.target))
    except InputError:  # a file that was renamed, or edited
        return f"Remove it with `{remove}`, and build an engine with `{build}`."
    command = " ".join([build, *_spell(options)])
    version = f"{flavors[options.flavor].version}"
    if blocks and path.stem != engine_stem(options.flavor, version, options.targets, f"{options.precision}"):
        command = f"{remove} && {command}"
    return f"Build it again with `{command}`."


def _options_of_name(stem: str) -> BuildOptions:
    """Return the options that the file name of an engine states; raises InputError for another name."""
    match = _STEM.fullmatch(stem)
    if match is None:
        raise InputError("not the name of an engine", subject=stem)
    flavor = next(flavor for flavor in FLAVORS if flavor == match[1])
    return BuildOptions(
        flavor=flavor,
        precision=next(precision for precision in PRECISIONS if precision == match[4]),
        targets=() if flavor != "rtx" or match[3] == LOCAL_TARGET else tuple(match[3].split("+")),
    )


def _options_of_engine(engine: Engine) -> BuildOptions:
    """Return the options that an engine was built with."""
    workspace_mb = engine.options.get("workspace_mb")
    is_rtx = engine.flavor == "rtx"
    return BuildOptions(
        flavor=engine.flavor,
        precision=engine.precision,
        targets=engine.targets if is_rtx else (),
        hardware_compatibility="none" if is_rtx else engine.hardware_compatibility,
        strip=engine.stripped,
        workspace_mb=workspace_mb if isinstance(workspace_mb, int) else None,
        allow_unfused=engine.options.get("allow_unfused") is True,
    )


def _spell(options: BuildOptions) -> list[str]:
    """Spell flavor, precision and the options that are not at their default."""
    values = {option.name: (getattr(options, option.name), option.default) for option in fields(options)}
    return [
        spell_for_command_line(name, value)
        for name, (value, default) in values.items()
        if name in ("flavor", "precision") or value != default
    ]
