"""The engine that a model of Triton's TensorRT backend loads."""

from __future__ import annotations

from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import PRECISIONS, Engine
from tcmoa_runtime.engine_folders import find_engines
from tcmoa_runtime.engine_trust import is_built_here, untrusted
from tcmoa_runtime.errors import BundleError, in_remedy
from tcmoa_runtime.options.repository import RepositoryOptions


def choose_plan(bundle: Bundle, options: RepositoryOptions) -> Engine:
    """Choose an engine that Triton can load: of TensorRT, with its weights, and by a maker that is trusted.

    Raises:
        BundleError: There is none, engines of several versions are left, or an engine is damaged.
        UntrustedEngineError: This user did not build the engine.
    """
    engines = [Engine.open(bundle, path) for path in find_engines(bundle)]
    usable = [engine for engine in engines if engine.flavor == "tensorrt" and not engine.stripped]
    wanted = [
        engine
        for engine in usable
        if options.tensorrt_version in (None, engine.version)
        and options.precision in (None, engine.precision)
    ]
    if not wanted:
        raise _no_plan(bundle, engines, options)
    versions = sorted({engine.version for engine in wanted})
    if len(versions) > 1:
        raise BundleError(
            f"has engines of TensorRT {' and '.join(versions)}; expected one version, that of TensorRT in Triton",
            subject=bundle.path,
            remedy="Set {tensorrt_version}",
            settings={"tensorrt_version": versions[-1]},
        )
    engine = min(wanted, key=lambda engine: PRECISIONS.index(engine.precision))
    if not options.trust_engines and not is_built_here(engine):
        raise untrusted(engine)
    return engine


def _no_plan(bundle: Bundle, engines: list[Engine], options: RepositoryOptions) -> BundleError:
    found = ", ".join(
        f"{'stripped ' if engine.stripped else ''}{engine.flavor} {engine.version} {engine.precision}"
        for engine in engines
    )
    asked = " ".join(filter(None, (options.tensorrt_version, options.precision)))
    return BundleError(
        f"has {f'engines of {found}' if found else 'no engine'}; expected one of TensorRT{asked and f' {asked}'} with "
        "its weights, as Triton loads no other",
        subject=bundle.path,
        remedy=f"Build one with `tcmoa build {in_remedy(bundle.spelling)}`, flavor tensorrt, with the version of "
        "TensorRT in Triton and on the kind of GPU that runs it",
    )
