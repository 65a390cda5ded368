"""One run of TensorRT's or TensorRT-RTX's builder.

TensorRT-RTX builds ahead of time, on machines without a GPU; TensorRT builds for the GPU that it runs on. The network
is strongly typed: all precision is stated in the graph.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from tcmoa_export.engines.callbacks import interruptible, new_monitor
from tcmoa_export.engines.kernel_lists import kernels_from_inspector, kernels_from_log
from tcmoa_export.engines.kernels import AuditError, Kernel
from tcmoa_export.engines.plan import BuildPlan
from tcmoa_export.engines.timing_cache import TimingCache
from tcmoa_runtime.backends.tensorrt.library_log import log_of
from tcmoa_runtime.errors import TcmoaError, first_line
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.typing import OnPhase, ignore_phase

_INSPECTOR: Final = "the engine's inspector"


class BuildError(TcmoaError):
    """TensorRT did not build the engine, or built one that must not be used; no engine was written."""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine, and its kernels where they could be read.

    Attributes:
        data: The serialized engine.
        listed: Its kernels in launch order, None if neither the log nor the engine lists them in a known form.
        why_not_listed: Why.
    """

    data: bytes
    listed: tuple[Kernel, ...] | None
    why_not_listed: str = ""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Its kernels in launch order; raises AuditError if they could not be read."""
        if self.listed is None:
            raise AuditError(self.why_not_listed)
        return self.listed


@dataclass(frozen=True)
class _Result:
    """What a run of the library's builder leaves.

    Attributes:
        data: The serialized engine; None if it was not built.
        timings: What to write to the timing cache.
        refusal: Why the library cannot read the graph.
    """

    data: bytes | None = None
    timings: bytes | None = None
    refusal: str | None = None


class EngineBuilder:
    """Builds one engine.

    Args:
        plan: What to build.
        on_progress: Called with the steps of each phase.
    """

    def __init__(self, plan: BuildPlan, on_progress: OnPhase = ignore_phase) -> None:
        self._plan, self._on_progress = plan, on_progress
        self._library = plan.library
        self._log = log_of(plan.library)

    def build(self, model: onnx.ModelProto, subject: str | Path = "graph") -> BuiltEngine:
        """Build an engine from a graph. Builds with one library in one process wait for each other.

        Args:
            model: The graph.
            subject: What errors call it.

        Raises:
            BuildError: TensorRT cannot read the graph or does not build the engine.
        """
        errors_before = self._log.count
        with self._log.collect() as (logger, lines), interruptible() as stop:
            monitor = new_monitor(self._library, self._on_progress, stop)
            try:
                result = self._run_builder(model, monitor, logger)
            except Exception as error:
                # They have the library's objects as arguments.
                traceback.clear_frames(error.__traceback__)
                raise
        failure, monitor.failure = monitor.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # else a cycle: exception, traceback, frame, exception
        if stop.is_set():
            raise KeyboardInterrupt
        if result.refusal is not None:
            raise BuildError(
                f"{self._plan.library_name} cannot read the graph ({result.refusal})", subject=subject
            )
        if result.data is None:
            raise self._build_error(subject, self._log.first_since(errors_before))
        if result.timings is not None:
            TimingCache(self._plan).write(result.timings)
        try:
            return BuiltEngine(result.data, tuple(self._list_kernels(result.data, lines)))
        except AuditError as error:
            return BuiltEngine(result.data, None, error.render_problem())

    def _run_builder(self, model: onnx.ModelProto, monitor: Any, logger: Any) -> _Result:
        """Run the library's builder, and free all objects of the library before returning.

        Else an exception's traceback would keep them until the garbage collector frees them: in any thread, in any
        order, e.g. within a callback of the next build.
        """
        library = self._library
        builder = network = parser = config = cache = data = None
        try:
            builder = library.Builder(logger)
            network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = library.OnnxParser(network, logger)
            # Not before: a parser gives the recorder of its network back when it is freed, which is after the network.
            builder.error_recorder = self._log.recorder
            if not parser.parse(model.SerializeToString()):
                reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
                return _Result(refusal=_one_line(reasons))
            config = builder.create_builder_config()
            cache = self._configure(config)
            config.progress_monitor = monitor
            data = builder.build_serialized_network(network, config)
            if data is None:
                return _Result()
            return _Result(bytes(data), None if cache is None else bytes(memoryview(cache.serialize())))
        finally:
            # An exception of a callback keeps this frame, the caller of the callback.
            del data, cache, config, parser, network, builder

    def _build_error(self, subject: str | Path, reason: str) -> BuildError:
        workspace_mb = self._plan.options.workspace_mb
        return BuildError(
            f"{self._plan.library_name} did not build the engine ({reason})",
            subject=subject,
            remedy="Nothing was written"
            if workspace_mb is None
            else "Nothing was written. Allow more than {workspace_mb}, or leave it out",
            settings={"workspace_mb": workspace_mb},
        )

    def _list_kernels(self, data: bytes, lines: list[str]) -> list[Kernel]:
        """Read the kernels from the builder's log; else ask the engine's inspector, where this GPU loads the engine."""
        try:
            return kernels_from_log(lines)
        except AuditError as error:
            reason = error.render_problem()
        try:
            return kernels_from_inspector(self._inspect(data))
        except TcmoaError as error:
            raise AuditError(f"{reason}; {error.render_problem()}") from None

    def _inspect(self, data: bytes) -> str:
        """Return the inspector's list of layers, as JSON; raises TcmoaError where there is none."""
        if self._plan.options.strip:
            raise AuditError("lists no kernels of an engine without weights", subject=_INSPECTOR)
        errors_before = self._log.count
        device = CudaDevice.current()
        try:
            with device.active():
                text = self._ask_inspector(data)
        except Exception as error:  # e.g. text that is not UTF-8
            raise AuditError(f"failed ({first_line(error)})", subject=_INSPECTOR) from None
        if text is None:  # e.g. built for other GPUs than this one
            reason = self._log.first_since(errors_before)
            raise AuditError(f"cannot load the engine on {device.name} ({reason})", subject=_INSPECTOR)
        return text

    def _ask_inspector(self, data: bytes) -> str | None:
        """Return the inspector's list of layers, None if the engine cannot be loaded on this GPU."""
        runtime = engine = inspector = None
        try:
            runtime = self._library.Runtime(self._log.logger)
            runtime.error_recorder = self._log.recorder
            engine = runtime.deserialize_cuda_engine(data)
            if engine is None:
                return None
            inspector = engine.create_engine_inspector()
            return str(inspector.get_engine_information(self._library.LayerInformationFormat.JSON))
        finally:
            del inspector, engine, runtime  # in this order

    def _configure(self, config: Any) -> Any:
        """Set the builder's options, and return its timing cache; None without one."""
        library, options = self._library, self._plan.options
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # the audit reads the kernels' types
        # The routers' products need float32, not TF32 with its 10 bits: near ties decide which adapters count.
        config.clear_flag(library.BuilderFlag.TF32)
        if options.workspace_mb is not None:
            config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
        if options.strip:
            config.set_flag(library.BuilderFlag.STRIP_PLAN)
            config.set_flag(library.BuilderFlag.REFIT_IDENTICAL)
        if options.flavor == "rtx":
            # NVIDIA requires it for engines that are captured into a CUDA graph.
            config.set_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)
            config.num_compute_capabilities = len(self._plan.targets)
            for i, target in enumerate(self._plan.targets):
                config.set_compute_capability(getattr(library.ComputeCapability, target.upper()), i)
            return None
        config.hardware_compatibility_level = getattr(
            library.HardwareCompatibilityLevel, options.hardware_compatibility.upper()
        )
        if not options.timing_cache:
            return None
        cache = config.create_timing_cache(TimingCache(self._plan).read())
        config.set_timing_cache(cache, ignore_mismatch=False)
        return cache


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
