"""Engines for tests: bundles without the comparison, TensorRT-RTX's builder on a graph, and a simulated `tensorrt`."""

import types

import torch

from tcmoa import TCMoA
from tcmoa_export import bundle_export, export_bundle
from tcmoa_export.engines.audit import audit
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.engines.plan import plan_build
from tcmoa_export.network import build_graph
from tcmoa_export.parity import Parity
from tcmoa_export.spec import make_spec
from tcmoa_runtime.gpu.cuda import CudaDevice
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.options.export import ExportOptions

NO_RTX = "tensorrt_rtx_bindings is not installed: pip install 'tcmoa[rtx]'"
"""Why tests of the real builder are skipped; it builds without a GPU, so CI runs them."""

SIZE = (112, 130)
"""Size of the small bundles that engines are built of."""
GPU = CudaDevice(0, "NVIDIA Test 1", "8.6", 1 << 34, "13.0")


def export_unchecked(model, out, **options):
    """Export a bundle, for task vif by default, without comparing it with the model: the tests of the export do."""
    passed = Parity(0, [], "none", 0, 0.0, 0.0, None, None)
    original = bundle_export.check_export
    bundle_export.check_export = lambda *_: passed
    try:
        return export_bundle(model, ExportOptions(**{"task": "vif", **options}), out)
    finally:
        bundle_export.check_export = original


def audit_of(model, size, precision):
    """Return the audit of the RTX engine of a model; a bundle of this size would only cost time."""
    spec = make_spec(model, ExportOptions(task="vif", size=size, precision=precision))
    graph = build_graph(model, spec, "test", "0")
    built = EngineBuilder(plan_build(BuildOptions(), precision)).build(graph)
    return audit(built.kernels, summarize_graph(graph), precision)


def random_weights(sizes):
    """Return a newly initialized model without x2 upsampling: fusion depends on shapes alone."""
    torch.manual_seed(0)
    return TCMoA(sizes, upsample=False).eval()


class _TimingCache:
    def __init__(self, blob):
        self.blob = blob

    def serialize(self):
        return self.blob + b"+1 build"


class _Config:
    """Keeps what only TensorRT's config has; everything else goes to RTX's config."""

    _OWN = frozenset({"hardware_compatibility_level"})

    def __init__(self, real, calls):
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "calls", calls)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def __setattr__(self, name, value):
        self.calls.append((name, value))
        if name not in self._OWN:
            setattr(self.real, name, value)

    def set_flag(self, flag):
        self.calls.append(("set_flag", flag.name))  # stripping would need a GPU

    def create_timing_cache(self, blob):
        self.calls.append(("create_timing_cache", blob))
        return _TimingCache(blob)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.calls.append(("set_timing_cache", cache.blob, ignore_mismatch))
        return True


def tensorrt_from(rtx, version="11.0.0.12"):
    """Return a module `tensorrt` that builds with TensorRT-RTX, and the list of calls of its config."""
    calls = []

    class Builder:
        def __init__(self, logger):
            self._real = rtx.Builder(logger)

        def create_network(self, flags):
            return self._real.create_network(flags)

        def create_builder_config(self):
            return _Config(self._real.create_builder_config(), calls)

        def build_serialized_network(self, network, config):
            config.real.num_compute_capabilities = 1  # RTX needs to know the GPU, which TensorRT would detect
            config.real.set_compute_capability(rtx.ComputeCapability.SM86, 0)
            return self._real.build_serialized_network(network, config.real)

    levels = types.SimpleNamespace(NONE="none", AMPERE_PLUS="ampere_plus", SAME_COMPUTE_CAPABILITY="same")
    module = types.ModuleType("tensorrt")
    vars(module).update(
        {name: getattr(rtx, name) for name in dir(rtx) if not name.startswith("__")},
        __version__=version,
        Builder=Builder,
        HardwareCompatibilityLevel=levels,
    )
    return module, calls
