"""The check of calls finds what is planted wrong, in the product's own source and in small pieces of it."""

import importlib
import types

import pytest

from proof.calls import check_calls
from proof.signature_check import computed_names, row_from
from proof.signatures import Parameter, Signature, pybind_signatures, signatures_of, split_parameters
from proof.sources import product_files, product_sources, unchecked_imports

CUDA = "tcmoa_runtime.gpu.cuda"
LOADING = "tcmoa_runtime.backends.tensorrt.engine_loading"


class IConfig:
    def set_flag(self):
        """set_flag(self: lib.lib.IConfig, flag: lib.lib.Flag, value: int = 1) -> None"""

    @property
    def limit(self):
        """(arg0: lib.lib.IConfig) -> int"""


class Flag:
    pass


Flag.TF32 = Flag()


class Builder:
    def __init__(self):
        """__init__(self: lib.lib.Builder, logger: lib.lib.ILogger) -> None"""

    def create_config(self):
        """create_config(self: lib.lib.Builder) -> lib.lib.IConfig"""

    def create_context(self):
        """create_context(*args, **kwargs)
        Overloaded function.

        1. create_context(self: lib.lib.Builder, config: lib.lib.IConfig) -> lib.lib.Builder

        2. create_context(self: lib.lib.Builder, flag: lib.lib.Flag = <Flag.TF32: 0>) -> lib.lib.Builder
        """


class ILogger:
    def __init__(self):
        """__init__(self: lib.lib.ILogger) -> None"""

    def log(self):
        """log(self: lib.lib.ILogger, severity: int, msg: str) -> None"""


Builder.create_context.__doc__ = "\n".join(
    line.strip() for line in Builder.create_context.__doc__.splitlines()
)


@pytest.fixture(scope="module")
def library():
    """A module with docstrings as pybind11 writes them."""
    module = types.ModuleType("lib")
    for cls in (Builder, IConfig, Flag, ILogger):
        setattr(module, cls.__name__, cls)
    return module


def findings(tmp_path, library, source, flavor="rtx"):
    path = tmp_path / "piece.py"
    path.write_text(source, encoding="utf-8")
    return [finding.text for finding in sorted(check_calls({"piece": path}, library, flavor=flavor).findings)]


RIGHT = """
class Logger:
    pass

def make(library):
    class Own(library.ILogger):
        def __init__(self):
            library.ILogger.__init__(self)

        def log(self, severity, msg):
            pass

    return Own()

class Build:
    def __init__(self, library):
        self.library, self._builder = library, library.Builder(make(library))

    def run(self):
        config = self._checked("configure", self._builder.create_config)
        config.set_flag(self.library.Flag.TF32, value=2)
        self._builder.create_context(config).create_context()
        return config.limit

    def _checked(self, step, function, *arguments):
        return function(*arguments)
"""


def test_what_is_right_has_no_findings(tmp_path, library):
    assert findings(tmp_path, library, RIGHT) == []


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("Flag.TF32", "Flag.TF33", "lib.Flag has no 'TF33'"),
        ("library.Builder(", "library.Bilder(", "lib has no 'Bilder'"),
        ("create_config)", "create_configs)", "lib.Builder has no 'create_configs'"),
        ("create_config)", "create_config, 1)", "takes 1 positional arguments, not 2"),
        ("value=2", "values=2", "has no parameter 'values'"),
        ("self.library.Flag.TF32, ", "", "misses flag"),
        ("self.library.Flag.TF32", "config", "gets IConfig as 'flag'"),
        ("self.library.Flag.TF32", "3", "gets 3 as 'flag'"),
        ("create_context(config)", "create_context(make(self.library))", "gets Own as 'config'"),
        ("Builder(make(library))", "Builder(Logger())", "gets Logger as 'logger'"),
        ("return config.limit", "config.limit = 1", "lib.IConfig.limit cannot be set"),
        ("return config.limit", "config.limits = 1", "lib.IConfig has no attribute 'limits' to set"),
        ("return config.limit", "return config.limits", "lib.IConfig has no 'limits'"),
        ("severity, msg", "msg", "Own.log takes 1 arguments; ILogger.log is called with 2"),
        ("ILogger.__init__(self)", "ILogger.__init__()", "misses self"),
        ("return config.limit", "return getattr(self.library, 'Flags')", "lib has no 'Flags'"),
        ("return config.limit", "getattr(self.library.Flag, name.upper())", "the names are not known"),
        ("return config.limit", "read(1).create_config()", "it is not known what this is called on"),
    ],
)
def test_each_planted_mistake_is_found(tmp_path, library, right, wrong, expected):
    assert RIGHT.count(right) == 1
    first, *_ = [f for f in findings(tmp_path, library, RIGHT.replace(right, wrong)) if expected in f] or [
        None
    ]
    assert first is not None


def test_branches_of_the_other_flavor_and_names_that_are_probed_are_no_findings(tmp_path, library):
    source = (
        "def run(library, options):\n"
        "    if options.flavor != 'rtx':\n"
        "        return library.OnlyTensorRt\n"
        "    if hasattr(library, 'Newer'):\n"
        "        library.Newer()\n"
        "    return getattr(library, 'Maybe', None)\n"
    )
    assert findings(tmp_path, library, source) == []
    (found,) = findings(tmp_path, library, source, flavor="tensorrt")
    assert found == "lib has no 'OnlyTensorRt'"


@pytest.mark.parametrize(
    ("module", "flavor", "name", "plants"),
    [
        (
            "cuda.bindings.runtime",
            None,
            CUDA,
            {
                '_destroy = "cudaEventDestroy"': '_destroy = "cudaEventDestroys"',
                '_call("cudaEventRecord", self.handle, stream.handle)': '_call("cudaEventRecord", self.handle)',
                "free, total = _call": "free, total, used = _call",
                "cudaStreamCaptureModeThreadLocal": "cudaStreamCaptureModeThread",
                "int(properties.totalGlobalMem)": "int(properties.totalMem)",
                '"cudaErrorIllegalAddress"': '"cudaErrorIllegalAdress"',
            },
        ),
        (
            "tensorrt_rtx_bindings",
            "rtx",
            LOADING,
            {
                ".execute_async_v3, stream.handle": ".execute_async_v4, stream.handle",
                "library.TensorLocation.DEVICE": "library.TensorLocation.GPU",
                "engine.get_tensor_mode(name) == modes.INPUT": "engine.get_tensor_mode() == modes.INPUT",
                "self.library.Refitter, self._engine,": "self.library.Refitter,",
            },
        ),
    ],
)
def test_mistakes_planted_in_the_product_are_found(tmp_path, module, flavor, name, plants):
    library = pytest.importorskip(module, reason=f"{module} is not installed; `make test` installs it")
    package = name.rpartition(".")[0]
    sources = {other: path for other, path in product_sources().items() if other.startswith(package)}
    text = sources[name].read_text(encoding="utf-8")
    for right, wrong in plants.items():
        assert right in text, right
        text = text.replace(right, wrong)
    changed = tmp_path / "changed.py"
    changed.write_text(text, encoding="utf-8")
    report = check_calls({**sources, name: changed}, library, flavor=flavor, choices=computed_names())
    assert {finding.file for finding in report.findings} == {str(changed)}
    lines = {text.splitlines()[finding.line - 1].strip() for finding in report.findings}
    assert len(report.findings) >= len(plants), lines
    for wrong in (
        ("totalMem", "CaptureModeThread)", "used = _call")
        if flavor is None
        else ("v4", "GPU", "get_tensor_mode()")
    ):
        assert any(wrong.rstrip(")") in line for line in lines), (wrong, lines)


def test_the_modules_that_the_product_imports_are_checked():
    assert unchecked_imports(product_files()) == []


def test_an_import_that_nothing_checks_is_found(tmp_path):
    path = tmp_path / "piece.py"
    path.write_text(
        "import importlib\nfrom cuda.bindings import cufile\nimportlib.import_module('tensorrt_lean')\n"
    )
    assert [found.rpartition(": ")[2] for found in unchecked_imports({"piece": path})] == [
        "cuda.bindings.cufile",
        "tensorrt_lean",
    ]


def test_signatures_of_pybind11():
    text = (
        "f(*args, **kwargs)\nOverloaded function.\n\n"
        "1. f(self: a.B, x: Tuple[int, int] = (1, 2), *, y: a.C = <C.D: 0>) -> a.D\n\nText.\n\n"
        "2. f(self: a.B) -> None\n"
    )
    first, second = pybind_signatures(text, "f")
    assert first.parameters == (
        Parameter("self", "a.B"),
        Parameter("x", "Tuple[int, int]", True),
        Parameter("y", "a.C", True, True),
    )
    assert (first.results, second.parameters) == (("a.D",), (Parameter("self", "a.B"),))
    assert first.mismatch(3, ()) == "takes 2 positional arguments, not 3"
    assert first.mismatch(1, ("y",)) is None
    assert split_parameters("a: B[c, d], e") == ["a: B[c, d]", "e"]


def test_signatures_of_cython_have_all_results():
    runtime = pytest.importorskip(
        "cuda.bindings.runtime", reason="cuda-bindings is not installed; `make test` installs it"
    )
    (signature,) = signatures_of(runtime.cudaMemGetInfo)
    assert signature == Signature((), ("cudaError_t", "int", "int"))


def test_a_result_with_findings_fails():
    result = {"findings": ["a.py:1: wrong"], "uses": 3, "files": ["a.py"], "optional": []}
    assert row_from("package 1.0", result).status == "FAILED"
    assert row_from("package 1.0", {**result, "findings": []}).status == "ok"


def test_the_names_that_options_compose_are_members():
    rtx = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed; `make test` installs it"
    )
    for name in computed_names()["ComputeCapability"]:
        assert hasattr(rtx.ComputeCapability, name)
    assert importlib.import_module(CUDA)
