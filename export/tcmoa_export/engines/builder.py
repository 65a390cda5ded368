"""One run of TensorRT's or TensorRT-RTX's builder.

TensorRT-RTX builds ahead of time, on machines without a GPU; TensorRT builds for the GPU that it runs on. The network
is strongly typed: all precision is stated in the graph.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from tcmoa_export.engines.callbacks import interruptible, new_logger, new_monitor
from tcmoa_export.engines.kernel_lists import kernels_from_inspector, kernels_from_log
from tcmoa_export.engines.kernels import Kernel
from tcmoa_export.engines.plan import BuildPlan
from tcmoa_export.engines.timing_cache import TimingCache
from tcmoa_runtime.errors import TcmoaError
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.typing import OnPhase, ignore_phase


class BuildError(TcmoaError):
    """TensorRT did not build the engine, or built one that must not be used; no engine was written."""


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
        self._logger = new_logger(plan.library)

    def build(self, model: onnx.ModelProto, subject: str | Path = "graph") -> tuple[bytes, list[Kernel]]:
        """Build an engine from a graph.

        Args:
            model: The graph.
            subject: What errors call it.

        Returns:
            The serialized engine and its kernels.

        Raises:
            BuildError: TensorRT cannot read the graph or does not build the engine.
            AuditError: The list of kernels cannot be read.
        """
        with interruptible() as stop:
            monitor = new_monitor(self._library, self._on_progress, stop)
            try:
                result = self._run_builder(model, monitor)
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
            raise self._build_error(subject)
        if result.timings is not None:
            TimingCache(self._plan).write(result.timings)
        kernels = self._list_kernels(result.data)
        self._logger.lines.clear()  # megabytes, and the logger is never freed
        return result.data, kernels

    def _run_builder(self, model: onnx.ModelProto, monitor: Any) -> _Result:
        """Run the library's builder, and free all objects of the library before returning.

        Else an exception's traceback would keep them until the garbage collector frees them: in any thread, in any
        order, e.g. within a callback of the next build.
        """
        library = self._library
        builder = network = parser = config = cache = data = None
        try:
            builder = library.Builder(self._logger)
            network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = library.OnnxParser(network, self._logger)
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

    def _build_error(self, subject: str | Path) -> BuildError:
        reason = self._logger.errors[0] if self._logger.errors else "it logged no reason"
        workspace_mb = self._plan.options.workspace_mb
        return BuildError(
            f"{self._plan.library_name} did not build the engine ({_one_line(reason)})",
            subject=subject,
            remedy="Nothing was written"
            if workspace_mb is None
            else "Nothing was written. Allow more than {workspace_mb}, or leave it out",
            settings={"workspace_mb": workspace_mb},
        )

    def _list_kernels(self, data: bytes) -> list[Kernel]:
        """Ask the engine's inspector where a GPU can load the engine; else read the builder's log."""
        try:
            CudaDevice.current()
        except TcmoaError:
            return kernels_from_log(self._logger.lines)
        engine = None
        if not self._plan.options.strip:
            engine = self._library.Runtime(self._logger).deserialize_cuda_engine(data)
        if engine is None:  # built for other GPUs than this one
            return kernels_from_log(self._logger.lines)
        json_format = self._library.LayerInformationFormat.JSON
        return kernels_from_inspector(engine.create_engine_inspector().get_engine_information(json_format))

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
