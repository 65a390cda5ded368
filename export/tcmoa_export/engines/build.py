"""From a bundle to an engine in it: lower the graph, build, audit, and only then write."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import onnx

from tcmoa_export.engines.audit import Audit, audit
from tcmoa_export.engines.builder import BuildError, BuiltEngine, EngineBuilder
from tcmoa_export.engines.graph_summary import GraphSummary, summarize_graph
from tcmoa_export.engines.kernels import AuditError
from tcmoa_export.engines.lowering import load_lowered_graph
from tcmoa_export.engines.plan import BuildPlan, plan_build
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import BuilderGpu, Engine, EngineDescription, write_engine
from tcmoa_runtime.engine_folders import ENGINE_SUFFIX, engines_folder, make_engines_folder
from tcmoa_runtime.engine_trust import is_built_here, record_built
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.log import log_step
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.pairs import find_source_pairs
from tcmoa_runtime.shipped_pairs import shipped_pairs
from tcmoa_runtime.typing import JsonObject, OnMessage, OnPhase, ignore_phase


def build_engine(
    bundle: Bundle | str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    on_message: OnMessage = log_step,
    on_progress: OnPhase = ignore_phase,
) -> Engine:
    """Build an engine into a bundle and open it; an engine that this user built from the same inputs is kept.

    The engine's hash is recorded as built by this user, see `tcmoa_runtime.engine_trust`.

    The graph of a bundle in float32 or 8 bits is lowered to the engine's precision, except for its quantized products,
    and compared with the bundle's own graph before it is built.

    Args:
        bundle: The bundle, or its folder.
        options: What to build; the defaults of `BuildOptions` if None.
        on_message: Called with each step.
        on_progress: Called with the steps of each phase of the builder.

    Raises:
        InputError: The options do not fit the bundle or the library.
        BundleError: The bundle is damaged.
        MissingError: The flavor's package, or the GPU that it needs, is missing.
        ParityError: The results of the lowered graph differ too much.
        BuildError: TensorRT fails, or its engine does not pass the audit.
        AuditError: The list of kernels cannot be read; with `allow_unfused`, that is a RuntimeWarning.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    options = BuildOptions() if options is None else options
    plan = plan_build(options, opened.precision)
    opened.check()
    path = engines_folder(opened) / f"{plan.stem}{ENGINE_SUFFIX}"
    key = plan.cache_key(opened)
    current = None if options.rebuild else _open_current(opened, path, key)
    if current is not None and (options.allow_unfused or not current.options["allow_unfused"]):
        on_message("up to date")
        return current
    if opened.manifest.get("target") == "cpu":
        on_message("the bundle was exported for CPUs; the engine of one for GPUs is faster")
    is_ours = opened.network is None
    if (
        is_ours
        and opened.precision == "int8"
        and opened.section("quantization").values.get("target") != "gpu"
    ):
        on_message(
            "the bundle was calibrated for CPUs; the engine of one for GPUs has fewer kernels and moves fewer bytes"
        )
    pairs = find_source_pairs(options) if options.has_pairs else shipped_pairs(opened.task)
    model = load_lowered_graph(opened, plan.precision, pairs, on_message)
    graph = summarize_graph(model, is_wrapped=opened.network is not None)
    on_message("building the engine")
    built = EngineBuilder(plan, on_progress).build(model, opened.graph_path)
    audited = _audit(built, graph, plan, opened)
    recorded: JsonObject = {**plan.recorded_options(), "key": key}
    return _write(opened, plan, model, built.data, recorded, audited)


def _open_current(bundle: Bundle, path: Path, key: str) -> Engine | None:
    """Open the engine at `path` if this user built it, it is undamaged and has this cache key."""
    try:
        engine = Engine.open(bundle, path)
        if engine.options.get("key") != key or not is_built_here(engine):
            return None
        engine.read()
        if engine.weights is not None:
            engine.read_weights()
    except BundleError:
        return None
    return engine


def _audit(built: BuiltEngine, graph: GraphSummary, plan: BuildPlan, bundle: Bundle) -> JsonObject:
    """Audit an engine and return the result for its JSON.

    Raises:
        AuditError: The kernels cannot be audited; with `allow_unfused`, that is a warning.
        BuildError: The engine does not pass the audit, without `allow_unfused`.
    """
    try:
        report = audit(built.kernels, graph, plan.precision)
    except AuditError as error:
        problem = f"the kernels of the engine cannot be audited: {error.render_problem()}"
        if not plan.options.allow_unfused:
            raise AuditError(
                problem,
                subject=bundle.path,
                remedy="No engine was written. Please report it, or write the engine nevertheless with "
                "{allow_unfused}",
                settings={"allow_unfused": True},
            ) from error
        warnings.warn(f"{bundle.path}: {problem}; it is written nevertheless", RuntimeWarning, stacklevel=3)
        return {"audit_error": error.render_problem()}
    if bundle.network is not None:
        _warn_of_unfused(report, bundle)
    elif not plan.options.allow_unfused:
        _check_fused(report, bundle)
    if not plan.options.allow_unfused:
        _check_precision(report, bundle)
    return report.to_dict()


def _warn_of_unfused(report: Audit, bundle: Bundle) -> None:
    """Warn of the attentions of a wrapped network that are not fused: that is up to how it is built."""
    if report.unfused:
        warnings.warn(
            f"{bundle.path}: {len(report.unfused)} of {len(report.graph.attentions)} attentions are not one kernel "
            f"each, e.g. {report.unfused[0]}",
            RuntimeWarning,
            stacklevel=4,
        )


def _check_fused(report: Audit, bundle: Bundle) -> None:
    """Raise BuildError when an attention is not fused."""
    if report.unfused:
        raise BuildError(
            f"{len(report.unfused)} of {len(report.graph.attentions)} attentions are not fused, e.g. "
            f"{report.unfused[0]}; expected each to be one kernel",
            subject=bundle.path,
            remedy="No engine was written. Build in fp16 or bf16, or write the engine nevertheless with "
            "{allow_unfused}",
            settings={"allow_unfused": True},
        )


def _check_precision(report: Audit, bundle: Bundle) -> None:
    """Raise BuildError when a product is in another precision than the graph states."""
    if report.wrong_precision:
        raise BuildError(
            f"{len(report.wrong_precision)} kernels compute in another precision than the graph states, e.g. "
            f"{report.wrong_precision[0]}",
            subject=bundle.path,
            remedy="No engine was written. Please report it, or write the engine nevertheless with {allow_unfused}",
            settings={"allow_unfused": True},
        )


def _write(
    bundle: Bundle,
    plan: BuildPlan,
    model: onnx.ModelProto,
    data: bytes,
    options: JsonObject,
    audit_json: JsonObject,
) -> Engine:
    """Write the engine, and the graph to refit it from where it is stripped and the bundle's has other types."""
    weights: Path | None = None
    types = (bundle.precision, bundle.weight_storage)
    if plan.options.strip and types != (plan.precision, plan.precision):
        weights = make_engines_folder(bundle) / f"{plan.stem}.onnx"
        write_bytes(weights, model.SerializeToString())
    gpu = None if plan.gpu is None else BuilderGpu(plan.gpu.name, plan.gpu.compute_capability)
    description = EngineDescription(
        flavor=plan.options.flavor,
        version=plan.version,
        precision=plan.precision,
        targets=plan.targets,
        hardware_compatibility=plan.options.hardware_compatibility,
        gpu=gpu,
        stripped=plan.options.strip,
        weights=None if weights is None else weights.name,
        options=options,
    )
    try:
        engine = write_engine(bundle, data, description, audit_json)
    except BaseException:  # an interrupt, too: no weights without their engine
        if weights is not None:
            weights.unlink(missing_ok=True)
        raise
    record_built(engine)
    return engine
