"""From a bundle to a TensorRT engine in it: lower, parse, build, audit, and only then put in place.

One code path for both flavors. TensorRT-RTX builds ahead of time on machines without a GPU; TensorRT builds for
the GPU that it runs on. The network is strongly typed: all precision comes from the graph.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import onnx

from tcmoa_export.audit import Audit, audit, graph_facts
from tcmoa_export.kernels import Kernel, kernels_from_inspector, kernels_from_log
from tcmoa_export.parity import judge_lowered
from tcmoa_export.precision import PRECISIONS, Precision, lower, sign_activations
from tcmoa_runtime.backends.tensorrt.engine_loading import import_library
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import (
    COMPATIBILITIES,
    ENGINES_FOLDER,
    FLAVORS,
    BuilderGpu,
    Engine,
    EngineDescription,
    engine_stem,
    write_engine,
)
from tcmoa_runtime.errors import BundleError, InputError, MissingError, TcmoaError
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.images import write_bytes

BUILDER_VERSION: Final = 1
"""Part of what an engine's cache key is made of: raised when this module builds differently."""

RTX_TARGETS: Final = ("sm80", "sm86", "sm89", "sm120")
"""Compute capabilities that an RTX engine is built for unless told otherwise: Ampere, Ada and Blackwell."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, its finished steps, and how many it has."""


class BuildError(TcmoaError):
    """TensorRT did not build the engine, or built one that must not be used; no engine was written."""


@dataclass(frozen=True)
class BuildOptions:
    """What shapes an engine besides the graph.

    `targets`: compute capabilities as `sm89`, RTX only, `RTX_TARGETS` when empty. `workspace_mb`: scratch memory of
    kernels, all that there is when None. `hardware_compatibility`: of TensorRT's engines, `none`, `ampere_plus` or
    `same_compute_capability`. `strip`: leave the weights out, to be refitted from the bundle's graph when loaded.
    `timing_cache`: keep TensorRT's measurements of kernels beside the engines; RTX has none to keep.
    """

    flavor: str = "rtx"
    precision: Precision = "fp16"
    targets: tuple[str, ...] = ()
    workspace_mb: int | None = None
    hardware_compatibility: str = "none"
    strip: bool = False
    timing_cache: bool = True

    def check(self) -> None:
        """Raise InputError on a value that no builder takes."""
        for what, value, known in (
            ("flavor", self.flavor, FLAVORS),
            ("precision", self.precision, PRECISIONS),
            ("hardware compatibility", self.hardware_compatibility, COMPATIBILITIES),
        ):
            if value not in known:
                raise InputError(f"{what} is {value!r}: expected one of {', '.join(known)}")
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise InputError(f"workspace is {self.workspace_mb} MB: expected 1 or more")
        if self.flavor == "tensorrt" and self.targets:
            raise InputError(
                "targets are for --flavor rtx: TensorRT builds for the GPU of this machine; see "
                "--hardware-compatibility"
            )
        if self.flavor == "rtx" and self.hardware_compatibility != "none":
            raise InputError("hardware compatibility is for --flavor tensorrt; RTX engines have --target")

    @property
    def all_targets(self) -> tuple[str, ...]:
        """The targets, or those that stand for none."""
        return self.targets or (RTX_TARGETS if self.flavor == "rtx" else ())


def build_engine(
    bundle: Bundle | str | os.PathLike[str],
    *,
    flavor: str = "rtx",
    precision: str | None = None,
    targets: Sequence[str] = (),
    workspace_mb: int | None = None,
    hardware_compatibility: str = "none",
    strip: bool = False,
    timing_cache: bool = True,
    allow_unfused: bool = False,
    rebuild: bool = False,
    pairs: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda _name, _done, _of: None,
) -> Engine:
    """Build an engine into `bundle`/engines and open it; one that is there and built from the same is kept.

    `precision`: `fp16`, `bf16` or `fp32`; the bundle's own when None, but fp16 for a float32 bundle. A float32
    bundle's graph is lowered here, and compared with itself in float32 (on `pairs`, else on photographs) before
    it is built. Bundles in int8 or fp8 are treated so, too: `precision` is of all but their quantised products. For
    the other options see `BuildOptions`. `allow_unfused`: write the engine although an attention is no single kernel
    or a product does not read the type that the graph says. `rebuild`: build in any case.

    Raises InputError on wrong options, BundleError on a damaged bundle, MissingError without the flavor's
    package (or a GPU, where it needs one), GateError when the lowered graph is too far from float32, BuildError
    when TensorRT fails or its engine does not pass.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    options = BuildOptions(
        flavor,
        _precision(opened, precision),
        tuple(sorted(set(targets), key=lambda name: (len(name), name))),
        workspace_mb,
        hardware_compatibility,
        strip,
        timing_cache,
    )
    options.check()
    opened.check()
    library = import_library(flavor)
    version = str(library.__version__)
    _check_targets(library, version, options.all_targets)
    device = _device(options, version)
    key = _key(opened, options, version, device)
    path = (
        opened.path
        / ENGINES_FOLDER
        / f"{engine_stem(flavor, version, options.all_targets, options.precision)}.engine"
    )
    kept = None if rebuild else _kept(opened, path, key)
    if kept is not None and (allow_unfused or not kept.options["allow_unfused"]):
        say("up to date")
        return kept
    if opened.manifest.get("target") == "cpu":
        say(
            "the bundle's tokens are ordered for CPUs: exported with --target gpu, its engine moves 7 % fewer bytes"
        )
    model = _graph(opened, options.precision, pairs, say)
    facts = graph_facts(model)
    say("building the engine")
    data, kernels = Builder(library, options, path.parent, progress).build(model, str(opened.graph_path))
    report = audit(kernels, facts, options.precision)
    if not allow_unfused:
        _check(report)
    gpu = None if device is None else BuilderGpu(device.name, device.compute_capability)
    weights = None
    if strip and options.precision != opened.precision:
        # The runtime refits from a graph of the engine's own types.
        weights = f"{path.stem}.onnx"
        path.parent.mkdir(exist_ok=True)
        write_bytes(path.with_name(weights), model.SerializeToString())
    try:
        return write_engine(
            opened,
            data,
            EngineDescription(
                flavor=cast("Any", flavor),
                version=version,
                precision=options.precision,
                targets=tuple(options.all_targets),
                hardware_compatibility=cast("Any", hardware_compatibility),
                gpu=gpu,
                stripped=strip,
                weights=weights,
                options={**dataclasses.asdict(options), "allow_unfused": allow_unfused, "key": key},
            ),
            report.figures(),
        )
    except BaseException:  # an interrupt, too: no weights without their engine
        if weights is not None:
            path.with_name(weights).unlink(missing_ok=True)
        raise


def _precision(bundle: Bundle, asked: str | None) -> Precision:
    own: Precision = next((p for p in PRECISIONS if p == bundle.precision), "fp32")
    if asked is None:
        return "fp16" if own == "fp32" else own
    if own not in ("fp32", asked) and asked in PRECISIONS:
        raise InputError(
            f"precision is {asked!r}: this bundle is {own}, and only a float32 bundle can be built in another; "
            f"export it with --precision fp32 or {asked}"
        )
    return cast("Precision", asked)  # BuildOptions.check tells


def _check_targets(library: Any, version: str, targets: Sequence[str]) -> None:
    known = [m.lower() for m in getattr(getattr(library, "ComputeCapability", None), "__members__", ())]
    for target in targets:
        if target == "sm75":
            raise InputError("target is 'sm75': Turing has no float32 products here, which the prompts need")
        if target not in known or not target.startswith("sm"):
            names = ", ".join(name for name in known if name.startswith("sm") and name != "sm75")
            raise InputError(f"target is {target!r}: TensorRT-RTX {version} builds for {names}")


def _device(options: BuildOptions, version: str) -> CudaDevice | None:
    """The GPU that is built on, where the builder needs one."""
    if options.flavor == "rtx" and not options.strip:
        return None
    try:
        return CudaDevice.current()
    except MissingError as error:
        what = "stripping weights" if options.strip else "TensorRT"
        instead = "leave --strip out" if options.flavor == "rtx" else "use --flavor rtx"
        raise MissingError(
            f"{what} needs a GPU to build on ({options.flavor} {version}): {error}; or {instead}"
        ) from error


def _key(bundle: Bundle, options: BuildOptions, version: str, device: CudaDevice | None) -> str:
    """Changes when anything does that the engine is made from."""
    parts = {
        "builder": BUILDER_VERSION,
        "graph": {name: entry.sha256 for name, entry in bundle.files.items()},
        "options": dataclasses.asdict(options),
        "targets": options.all_targets,
        "version": version,
        "gpu": None if device is None else [device.name, device.compute_capability],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _kept(bundle: Bundle, path: Path, key: str) -> Engine | None:
    """The engine at `path` when it was built from the same and is whole."""
    try:
        engine = Engine.open(bundle, path)
        if engine.options.get("key") != key:
            return None
        engine.read()
        if engine.weights is not None:
            engine.read_weights()
    except BundleError:
        return None
    return engine


def _graph(
    bundle: Bundle, precision: Precision, pairs: str | os.PathLike[str] | None, say: Callable[[str], None]
) -> onnx.ModelProto:
    # Weights beside the graph are found through its path only; else what is built is what was hashed.
    beside = bundle.has_external_data
    model = onnx.load(bundle.graph_path) if beside else onnx.load_from_string(bundle.read_graph())
    if precision != bundle.precision:
        say(f"lowering the graph to {precision}")
        lower(sign_activations(model), precision)
        judge_lowered(bundle, model, precision, pairs, say)
    return model


def _check(report: Audit) -> None:
    """BuildError when an attention is not fused or the precision is not what was asked."""
    if report.unfused:
        count = len(report.facts.attentions)
        raise BuildError(
            f"{len(report.unfused)} of {count} attentions are not fused, the first is {report.unfused[0]}; no "
            f"engine was written: build in fp16 or bf16, or go on with --allow-unfused"
        )
    if report.wrong_precision:
        raise BuildError(
            f"{len(report.wrong_precision)} kernels do not compute as asked, the first: {report.wrong_precision[0]}; "
            f"no engine was written: please report it, or go on with --allow-unfused"
        )


class Builder:
    """One run of a flavor's builder, with all that it logs; the timing cache lies in `folder`."""

    def __init__(self, library: Any, options: BuildOptions, folder: Path, progress: Progress) -> None:
        self._library, self._options, self._folder, self._progress = library, options, folder, progress
        self._logger = _logger(library)

    def build(self, model: onnx.ModelProto, where: str = "graph") -> tuple[bytes, list[Kernel]]:
        """The serialised engine of a graph (`where` names it in errors) and its kernels; else BuildError."""
        library = self._library
        builder = library.Builder(self._logger)
        network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = library.OnnxParser(network, self._logger)
        if not parser.parse(model.SerializeToString()):
            reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
            raise BuildError(f"{where}: {self._name} cannot read the graph ({_line(reasons)})")
        config = builder.create_builder_config()
        with self._configured(config), _interruptible() as stop:
            monitor = config.progress_monitor = _monitor(library, self._progress, stop)
            data = builder.build_serialized_network(network, config)
            if monitor.failure is not None:
                raise monitor.failure
            if stop.is_set():
                raise KeyboardInterrupt
            if data is None:
                reason = self._logger.errors[0] if self._logger.errors else "it logged no reason"
                given = self._options.workspace_mb
                raise BuildError(
                    f"{self._name} did not build the engine ({_line(reason)}); nothing was written"
                    + (f": raise --workspace above {given} MB, or leave it out" if given else "")
                )
        return bytes(data), self._kernels(bytes(data))

    def _kernels(self, data: bytes) -> list[Kernel]:
        """From the engine's inspector where a GPU can load the engine, else from what the builder logged."""
        try:
            CudaDevice.current()
        except TcmoaError:
            return kernels_from_log(self._logger.lines)
        engine = (
            None if self._options.strip else self._library.Runtime(self._logger).deserialize_cuda_engine(data)
        )
        if engine is None:  # built for other GPUs than this one
            return kernels_from_log(self._logger.lines)
        json_form = self._library.LayerInformationFormat.JSON
        return kernels_from_inspector(engine.create_engine_inspector().get_engine_information(json_form))

    @property
    def _name(self) -> str:
        return f"{self._library.__name__} {self._library.__version__}"

    @contextmanager
    def _configured(self, config: Any) -> Iterator[None]:
        library, options = self._library, self._options
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # the audit reads the kernels' types
        # The routers' products must be float32, not the 10 bits of TF32: near ties decide which adapters count.
        config.clear_flag(library.BuilderFlag.TF32)
        if options.workspace_mb is not None:
            config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
        if options.strip:
            config.set_flag(library.BuilderFlag.STRIP_PLAN)
            config.set_flag(library.BuilderFlag.REFIT_IDENTICAL)
        if options.flavor == "rtx":
            # Without it, says NVIDIA, an engine may not be captured into a CUDA graph.
            config.set_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)
            config.num_compute_capabilities = len(options.all_targets)
            for i, target in enumerate(options.all_targets):
                config.set_compute_capability(getattr(library.ComputeCapability, target.upper()), i)
            yield
            return
        config.hardware_compatibility_level = getattr(
            library.HardwareCompatibilityLevel, options.hardware_compatibility.upper()
        )
        if not options.timing_cache:
            yield
            return
        path = self._folder / f"{options.flavor}-{library.__version__}.timing_cache"
        cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
        yield
        self._folder.mkdir(exist_ok=True)
        write_bytes(path, bytes(memoryview(cache.serialize())))


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _logger(library: Any) -> Any:
    """A logger that keeps all lines; its class can only be made once the library is there."""

    class Logger(library.ILogger):  # type: ignore[misc]
        """Keeps what the builder writes: the kernel list is in it."""

        def __init__(self) -> None:
            library.ILogger.__init__(self)  # pybind11 wants exactly this
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Keep a line."""
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                self.errors.append(msg)
            else:
                self.lines.append(msg)

    return Logger()


def _monitor(library: Any, progress: Progress, stop: threading.Event) -> Any:
    """What the builder tells of its progress, and what tells it to stop."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        """Hands on each step; phases nest, so a step belongs to the phase that it names."""

        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self.failure: BaseException | None = None

        def _tell(self, phase_name: str, done: int, of: int) -> None:
            # An exception must not cross native frames: it ends the build, and is raised behind it.
            try:
                progress(phase_name, done, of)
            except BaseException as error:
                self.failure = self.failure or error
                stop.set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Remember how many steps a phase has."""
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Go on unless interrupted."""
            self._tell(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            """A phase may end before its last step."""
            self._tell(phase_name, self._steps.get(phase_name, 0), self._steps.get(phase_name, 0))

    return Monitor()


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let Ctrl-C set an event that the builder asks for: an exception must not cross its native frames."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
