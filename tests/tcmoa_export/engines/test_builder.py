"""When `EngineBuilder` frees the objects of the library, and which errors it raises."""

import contextlib
import dataclasses
import gc
import signal
import types
import weakref

import onnx
import pytest
from onnx import TensorProto, helper

import engine_pieces
from raised_signals import raise_handled
from tcmoa_export import BuildError
from tcmoa_export.engines.builder import EngineBuilder
from tcmoa_export.engines.plan import plan_build
from tcmoa_runtime.options.build import BuildOptions
from tcmoa_runtime.typing import ignore_phase

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason=engine_pieces.NO_RTX, exc_type=ImportError)


def graph_of(operator):
    """Return a graph of one node."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], name="node")], "graph", [x], [y])
    return helper.make_model(graph, opset_imports=[onnx.OperatorSetIdProto(version=17)], ir_version=8)


@pytest.fixture
def objects():
    """Weak references to the library's objects that a builder makes."""
    return []


@pytest.fixture
def library(objects):
    """TensorRT-RTX, whose objects are recorded in `objects`."""

    def recorded(item):
        objects.append(weakref.ref(item))
        return item

    class Builder:
        def __init__(self, logger):
            self._real = recorded(rtx.Builder(logger))
            self.build_serialized_network = self._real.build_serialized_network

        def create_network(self, flags):
            return recorded(self._real.create_network(flags))

        def create_builder_config(self):
            return recorded(self._real.create_builder_config())

    module = types.ModuleType("tensorrt_rtx")
    vars(module).update({name: getattr(rtx, name) for name in dir(rtx) if not name.startswith("__")})
    vars(module).update(
        __version__=rtx.__version__,
        Builder=Builder,
        OnnxParser=lambda network, logger: recorded(rtx.OnnxParser(network, logger)),
    )
    return module


def press_ctrl_c(*_):
    raise_handled(signal.SIGINT)


def fail(*_):
    raise RuntimeError("the bar is broken")


@pytest.fixture
def no_collector():
    """Leave freeing to reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("operator", "on_progress", "targets", "error", "count"),
    [
        ("Relu", ignore_phase, ("sm86",), None, 4),
        ("Relu", press_ctrl_c, ("sm86",), KeyboardInterrupt, 4),
        ("Relu", fail, ("sm86",), RuntimeError, 4),
        ("NoOperator", ignore_phase, ("sm86",), BuildError, 3),
        ("Relu", ignore_phase, ("sm1",), AttributeError, 4),
    ],
    ids=["built", "interrupted", "callback fails", "graph refused", "fault of our own"],
)
def test_objects_are_freed_while_the_error_is_still_handled(
    library, objects, operator, on_progress, targets, error, count
):
    """The collector would free them in any thread, at any time, e.g. within a callback of the next build."""
    plan = plan_build(BuildOptions(targets=("sm86",)), "fp32")
    plan = dataclasses.replace(plan, library=library, targets=targets)
    with contextlib.nullcontext() if error is None else pytest.raises(error) as caught:
        EngineBuilder(plan, on_progress).build(graph_of(operator))
    assert len(objects) == count
    assert [reference() for reference in objects] == [None] * count
    assert error is None or caught.tb is not None


@pytest.mark.usefixtures("no_collector")
def test_a_progress_function_is_freed_with_its_exception(library):
    class Bar:
        def __call__(self, *_):
            raise RuntimeError("the bar is broken")

    bar = Bar()
    reference = weakref.ref(bar)
    plan = dataclasses.replace(plan_build(BuildOptions(targets=("sm86",)), "fp32"), library=library)
    with contextlib.suppress(RuntimeError):
        EngineBuilder(plan, bar).build(graph_of("Relu"))
    del bar
    assert reference() is None
