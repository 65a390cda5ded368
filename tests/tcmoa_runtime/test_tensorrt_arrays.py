"""Arrays in GPU memory as inputs and results of the TensorRT backend, on a simulated CUDA; no GPU is used."""

import gc
import weakref

import numpy as np
import pytest

from simulated.cases import ByDlpack, OnGpu, read
from tcmoa_runtime import Fuser, InputError, TcmoaError
from tcmoa_runtime.backends.tensorrt.backend import TensorRTBackend
from tcmoa_runtime.gpu import dlpack
from tcmoa_runtime.gpu.device_arrays import DeviceArray

pytest_plugins = ["simulated.fixtures"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.zeros((1, 100, 131, 3), np.uint8)}, r"x: uint8 \[1, 100, 131, 3\]; expected uint8"),
        ({"y": np.zeros((1, 100, 130, 3), np.float32)}, "y: float32"),
        ({"prompt_scale": np.zeros((1, 13, 17))}, "prompt_scale: float64"),
        ({"z": np.zeros(1)}, "inputs are"),
        ({"x": [[1], [2, 3]]}, "x: a list that is not an array"),
    ],
)
def test_wrong_host_arrays_are_refused_and_nothing_is_queued(change, words, backend, device, cases):
    before = len(device.calls)
    with pytest.raises(InputError, match=words):
        backend.infer({**cases.inputs(0), **change})
    assert set(device.calls[before:]) <= {"cuCtxPushCurrent", "cuCtxPopCurrent"}
    assert cases.same(backend.infer(cases.inputs(0)), 0)


def test_arrays_of_other_libraries_on_the_host_are_taken(backend, cases):
    import torch

    inputs = {n: torch.from_numpy(a.copy()) for n, a in cases.inputs(3).items()}
    assert cases.same(backend.infer(inputs), 3)


def test_host_arrays_need_not_be_contiguous(backend, cases):
    inputs = cases.inputs(2)
    turned = {n: np.asfortranarray(a) for n, a in inputs.items()}
    assert cases.same(backend.infer(turned), 2)


@pytest.mark.parametrize("make", [OnGpu, ByDlpack, lambda g, a: ByDlpack(g, a, versioned=False)])
@pytest.mark.parametrize("batch_axis", [True, False])
def test_arrays_on_the_gpu_are_taken_without_a_host_copy(make, batch_axis, backend, device, cases):
    inputs = cases.inputs(4)
    arrays = {n: make(device, a if batch_axis else a[0]) for n, a in inputs.items()}
    before = len(device.calls)
    assert cases.same(backend.infer(arrays), 4)
    kinds = device.calls[before:].count("cudaMemcpyAsync")
    assert kinds == 4 + 2  # four within the GPU, two downloads
    for array in arrays.values():
        if isinstance(array, ByDlpack):
            assert array.asked == [backend._copy_in.handle]
        array.free()


@pytest.mark.parametrize("make", [OnGpu, ByDlpack])
def test_an_input_is_kept_alive_until_it_is_copied(make, backend, device, cases):
    x = make(device, cases.inputs(0)["x"])
    gone, memory = weakref.ref(x), x.memory
    ticket = backend.submit({**cases.inputs(0), "x": x})
    del x
    assert gone() is not None
    assert cases.same(ticket.result(), 0)
    gc.collect()
    assert gone() is None
    device.release(memory)


def test_the_backend_waits_for_the_owner_in_both_protocols(backend, device, cases):
    inputs, stream = cases.inputs(5), device.stream()
    x = OnGpu(device, np.zeros_like(inputs["x"]), stream=stream)
    y = ByDlpack(device, np.zeros_like(inputs["y"]))
    device.queue(stream, lambda: x.memory.content.__setitem__(slice(None), inputs["x"].ravel()))

    def write_y(asked):
        device.queue(asked, lambda: y.memory.content.__setitem__(slice(None), inputs["y"].ravel()))

    y.ready = write_y
    ticket = backend.submit({**inputs, "x": x, "y": y})
    device.queue(stream, lambda: x.memory.content.fill(9))  # the owner writes its next frame
    device.drain(device.streams[stream])
    assert cases.same(ticket.result(), 5)
    x.free()
    y.free()
    del device.streams[stream]


def strided(values):
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(values, 1, 2)), 1, 2)


WRONG_INTERFACES = {
    "another shape": ({"shape": (1, 100, 131, 3)}, r"x: uint8 \[1, 100, 131, 3\]; expected uint8"),
    "another type": ({"typestr": "<u2"}, "x: uint16"),
    "no type": ({"typestr": "quux"}, "cannot be read"),
    "strides": (
        {"strides": (1, 3, 300, 1)},
        r"x: strides \[1, 3, 300, 1\]; expected \[39000, 390, 3, 1\]",
    ),
    "a mask": ({"mask": "x"}, "masked"),
    "stream 0": ({"stream": 0}, "names the stream 0"),
    "a stream that is no number": ({"stream": "s"}, "names the stream 's'"),
    "no data": ({"data": None}, "cannot be read"),
    "host memory": ({"data": (np.zeros(8).ctypes.data, False)}, "not memory of a CUDA device"),
    "nothing": ({"data": (0, False)}, "not memory of a CUDA device"),
}


@pytest.mark.parametrize("wrong", WRONG_INTERFACES)
def test_wrong_cuda_array_interfaces_are_refused_in_one_line(wrong, backend, device, cases):
    changes, words = WRONG_INTERFACES[wrong]
    inputs = cases.inputs(0)
    x = OnGpu(device, inputs["x"], **changes)
    for call in (backend.infer, backend.submit, backend.infer_device):
        with pytest.raises(InputError, match=words) as caught:
            call({**inputs, "x": x})
        assert "\n" not in str(caught.value)
    assert cases.same(backend.infer(inputs), 0)
    x.free()


def test_strides_of_axes_of_size_one_are_ignored(backend, device, cases):
    inputs = cases.inputs(0)
    x = OnGpu(device, inputs["x"], strides=(7, 390, 3, 1), mask=None, stream=None)
    assert cases.same(backend.infer({**inputs, "x": x}), 0)
    x.free()


@pytest.mark.parametrize(
    "make", [OnGpu, lambda g, a, device: ByDlpack(g, a, index=device)], ids=["cai", "dlpack"]
)
def test_arrays_of_another_gpu_are_refused(make, backend, device, cases):
    inputs = cases.inputs(0)
    x = make(device, inputs["x"], device=1)
    with pytest.raises(InputError, match=r"expected CUDA device 0.*Copy the array there"):
        backend.infer({**inputs, "x": x})
    x.free()


WRONG_TENSORS = {
    "another type": (lambda g, a: ByDlpack(g, a.astype(np.uint16)), "x: uint16"),
    "signed": (lambda g, a: ByDlpack(g, a.astype(np.int8)), "x: int8"),
    "another shape": (lambda g, a: ByDlpack(g, a[:, :50]), r"x: uint8 \[1, 50, 130, 3\]"),
    "strides": (lambda g, a: ByDlpack(g, strided(a)), r"x: strides .*C-contiguous"),
    "another kind of device": (lambda g, a: ByDlpack(g, a, kind=10), "DLPack device type 10"),
    "memory of another gpu": (lambda g, a: ByDlpack(g, a, in_memory_of=1), "memory of CUDA device 1"),
}


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
def test_wrong_dlpack_tensors_are_refused_and_released(wrong, backend, device, cases):
    make, words = WRONG_TENSORS[wrong]
    inputs = cases.inputs(0)
    x = make(device, np.ascontiguousarray(inputs["x"]))
    gone, memory = weakref.ref(x.array), x.memory
    with pytest.raises(InputError, match=words) as caught:
        backend.infer({**inputs, "x": x})
    assert "\n" not in str(caught.value)
    del caught, x
    gc.collect()
    assert gone() is None
    device.release(memory)
    assert cases.same(backend.infer(inputs), 0)


class Awkward:
    """An object whose `__dlpack__` does not return a fresh capsule."""

    def __init__(self, give):
        self.give = give

    def __dlpack_device__(self):
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream=None, max_version=None):
        return self.give()


def used_capsule():
    capsule = np.zeros(3).__dlpack__()
    dlpack._set_name(capsule, b"used_dltensor")
    return capsule


def newer_capsule():
    capsule = np.zeros(3).__dlpack__(max_version=(1, 0))
    dlpack._ManagedVersioned.from_address(dlpack._get_pointer(capsule, b"dltensor_versioned")).major = 2
    return capsule


def refuse():
    raise BufferError("tensor requires a gradient\nand more")


@pytest.mark.parametrize(
    ("give", "words"),
    [
        (refuse, r"cannot be read \(tensor requires a gradient\)"),
        (lambda: None, "returned no DLPack capsule"),
        (used_capsule, "or a consumed one"),
        (newer_capsule, r"DLPack 2\.\d; expected 1.x"),
    ],
)
def test_awkward_dlpack_owners_are_refused_in_one_line(give, words, backend, cases):
    with pytest.raises(InputError, match=words) as caught:
        backend.infer({**cases.inputs(0), "x": Awkward(give)})
    assert "\n" not in str(caught.value)


def test_dlpack_is_preferred_where_an_object_has_both_protocols(backend, device, cases):
    """PyTorch's `__cuda_array_interface__` does not name its stream."""

    class Both(ByDlpack):
        @property
        def __cuda_array_interface__(self):
            pytest.fail("was read")

    x = Both(device, cases.inputs(0)["x"])
    assert cases.same(backend.infer({**cases.inputs(0), "x": x}), 0)
    x.free()


def test_results_stay_on_the_gpu(backend, device, cases):
    before = len(device.calls)
    results = backend.infer_device(cases.inputs(1))
    assert device.calls[before:].count("cudaMemcpyAsync") == 4
    assert not {"cudaStreamSynchronize"} & set(device.calls[before:])
    assert [(n, a.dtype, a.shape) for n, a in results.items()] == [
        (s.name, s.dtype, s.shape) for s in backend._contract.outputs
    ]
    interface = results["fused"].__cuda_array_interface__
    assert (interface["version"], interface["strides"], interface["typestr"]) == (3, None, "|u1")
    assert interface["stream"] not in (None, 0)
    assert repr(results["fused"]) == "DeviceArray(uint8 [1, 100, 130, 3] on cuda:0)"
    assert cases.same({n: read(device, a) for n, a in results.items()}, 1)


def test_held_results_are_never_overwritten(backend, device, cases):
    results = backend.infer_device(cases.inputs(1))
    for number in (2, 3, 4):
        assert cases.same(backend.infer(cases.inputs(number)), number)
    assert cases.same({n: read(device, a) for n, a in results.items()}, 1)
    others = backend.infer_device(cases.inputs(5))
    with pytest.raises(TcmoaError, match="all 2 slots"):
        backend.infer(cases.inputs(0))
    fused = others["fused"].without_batch_axis()
    del others
    with pytest.raises(TcmoaError, match="all 2 slots"):  # one array of the call keeps the slot
        backend.infer(cases.inputs(0))
    del fused
    assert cases.same(backend.infer(cases.inputs(0)), 0)


def test_a_dlpack_capsule_of_a_result_keeps_its_slot(backend, device, cases):
    results = backend.infer_device(cases.inputs(1))
    assert results["prompt"].__dlpack_device__() == (dlpack.CUDA, 0)
    stream = device.stream()
    capsule = results["prompt"].__dlpack__(stream=stream, max_version=(1, 1))
    device.drain(device.streams[stream])  # it waits for the result
    expected = cases.outputs(1)["prompt"]
    memory = device.find(results["prompt"].__cuda_array_interface__["data"][0], expected.nbytes, 0)
    assert memory.tobytes() == expected.tobytes()
    del results
    assert numpy_reads(capsule, expected)
    del capsule
    backend.infer(cases.inputs(0))
    device.finish()
    del device.streams[stream]


def numpy_reads(capsule, expected):
    """Whether NumPy reads `expected` from the capsule, relabeled as host memory; the array keeps the memory alive."""
    managed = dlpack._Managed.from_address(dlpack._get_pointer(capsule, b"dltensor"))
    managed.tensor.device.type = dlpack.CPU

    class Given:
        def __dlpack__(self, **_):
            return capsule

        def __dlpack_device__(self):
            return dlpack.CPU, 0

    array = np.from_dlpack(Given())
    return array.shape == expected.shape and array.tobytes() == expected.tobytes()


def test_capsules_that_are_not_consumed_keep_nothing_alive(backend, cases):
    results = backend.infer_device(cases.inputs(1))
    for stream in (None, -1, 1):
        results["fused"].__dlpack__(stream=stream)
    gone = weakref.ref(results["fused"])
    del results
    assert gone() is None
    assert not dlpack._exported


def test_results_are_exported_without_conversion_only(backend, cases):
    fused = backend.infer_device(cases.inputs(1))["fused"]
    fused.__dlpack__(dl_device=(dlpack.CUDA, 0), copy=False)
    with pytest.raises(BufferError):
        fused.__dlpack__(dl_device=(dlpack.CPU, 0))
    with pytest.raises(BufferError):
        fused.__dlpack__(copy=True)
    with pytest.raises(ValueError, match="stream 0 is ambiguous"):
        fused.__dlpack__(stream=0)


def test_results_feed_the_next_call(backend, device, cases):
    """A result on the GPU is the input of the next call."""
    first = backend.infer_device(cases.inputs(0))["fused"]
    expected = cases.reference.infer({**cases.inputs(0), "x": cases.outputs(0)["fused"]})
    again = backend.infer_device({**cases.inputs(0), "x": first})
    assert read(device, again["fused"]).tobytes() == expected["fused"].tobytes()


def test_results_outlive_the_backend(bundle, library, device, cases):
    backend = TensorRTBackend(bundle)
    results = backend.infer_device(cases.inputs(1))
    dropped = backend.infer_device(cases.inputs(2))
    del dropped
    backend.close()
    assert device.live().keys() == {"device"}
    assert len(device.live()["device"]) == len(results)
    address = results["fused"].__cuda_array_interface__["data"][0]
    expected = cases.outputs(1)["fused"]
    assert device.find(address, expected.nbytes, 0).tobytes() == expected.tobytes()
    capsule = results["fused"].__dlpack__()
    del results
    assert numpy_reads(capsule, expected)
    del capsule
    assert device.live() == {}


def test_results_dropped_while_another_device_is_current_are_freed(bundle, library, device, cases):
    backend = TensorRTBackend(bundle)
    results = backend.infer_device(cases.inputs(1))
    backend.close()
    device.current.device = 1
    del results
    assert device.live() == {}
    assert device.device() == 1
    device.current.device = 0


@pytest.fixture
def fuser(bundle, backend):
    return Fuser(bundle, backend)


def test_the_fuser_returns_the_same_as_with_onnxruntime(fuser, bundle, cases, four_pairs):
    x, y = four_pairs
    reference = Fuser(bundle, cases.reference)
    np.testing.assert_array_equal(fuser(x, y, shift=0.3), reference(x, y, shift=0.3))
    fused, prompt = fuser.with_prompt(x[0], y[0])
    expected, wanted_prompt = reference.with_prompt(x[0], y[0])
    np.testing.assert_array_equal(fused, expected)
    np.testing.assert_array_equal(prompt, wanted_prompt)


@pytest.mark.parametrize("make", [OnGpu, ByDlpack])
@pytest.mark.parametrize("single", [True, False])
def test_the_fuser_leaves_frames_on_the_gpu(make, single, fuser, bundle, device, cases, pair):
    shift = np.random.default_rng(0).uniform(-0.5, 0.5, fuser.grid)
    expected, wanted_prompt = Fuser(bundle, cases.reference).with_prompt(*pair, shift=shift)
    x, y = (make(device, a if single else a[None]) for a in pair)
    fused, prompt = fuser.with_prompt(x, y, shift=shift)
    assert isinstance(fused, DeviceArray)
    assert fused.shape == ((100, 130, 3) if single else (1, 100, 130, 3))
    assert read(device, fused).tobytes() == expected.tobytes()
    assert read(device, prompt).tobytes() == wanted_prompt.tobytes()
    del fused, prompt
    for _ in range(4):
        assert isinstance(fuser(x, y), DeviceArray)
    device.finish()
    x.free()
    y.free()


@pytest.mark.parametrize("which", [0, 1])
def test_the_fuser_takes_one_frame_from_each_side(which, fuser, bundle, device, cases, pair):
    expected = Fuser(bundle, cases.reference)(*pair)
    there = OnGpu(device, pair[which])
    given = [there if i == which else a for i, a in enumerate(pair)]
    assert read(device, fuser(*given)).tobytes() == expected.tobytes()
    there.free()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a[:50], r"x: uint8 \[50, 130, 3\]; expected uint8 \[1, 100, 130, 3\]"),
        (lambda a: a.astype(np.uint16), "x: uint16"),
        (lambda a: np.stack([a, a]), "x has 4 axes and y 3"),
        (lambda a: a[..., 0], "x has 2 axes and y 3"),
    ],
)
def test_the_fuser_converts_nothing_on_the_gpu(change, words, fuser, device, pair):
    x = OnGpu(device, np.ascontiguousarray(change(pair[0])))
    with pytest.raises(InputError, match=words):
        fuser(x, pair[1])
    x.free()


def test_the_fuser_refuses_frames_on_the_gpu_with_a_cpu_backend(bundle, cases, device, pair):
    x = OnGpu(device, pair[0])
    with pytest.raises(InputError):
        Fuser(bundle, cases.reference)(x, pair[1])
    x.free()


def test_two_fusers_in_one_process(bundle, library, cases, pair):
    with Fuser.load(bundle.path, "tensorrt") as one, Fuser.load(bundle.path, "tensorrt") as other:
        np.testing.assert_array_equal(one(*pair), other(*pair))
    with pytest.raises(TcmoaError, match="closed"):
        one(*pair)


def test_streams_of_another_context_are_refused(bundle, backend, device, cases):
    """`pycuda.autoinit` makes a context beside the primary one; CUDA would refuse the events of this one."""
    there = device.stream(context=0xD000)
    line = (
        "a stream of another CUDA context; expected one of the primary context of the GPU. Create it in the primary "
        "context, e.g. with `import pycuda.autoprimaryctx` in place of `pycuda.autoinit`"
    )
    with pytest.raises(InputError, match=f"^stream: {line}$"):
        backend.infer_device(cases.inputs(1), there)
    device.cudaStreamDestroy(there)


def test_streams_of_another_device_are_refused(bundle, backend, device, cases):
    """CUDA would refuse to record an event in them, or the backend would not wait for what they read."""
    there = device.stream(1)
    line = "a stream of CUDA device 1; expected one of device 0, where the bundle is loaded"
    with pytest.raises(InputError, match=f"^stream: {line}$"):
        TensorRTBackend(bundle, stream=there)
    with pytest.raises(InputError, match=f"^stream: {line}$"):
        backend.infer_device(cases.inputs(1), there)
    inputs = cases.inputs(1)
    x = OnGpu(device, inputs["x"], stream=there)
    with pytest.raises(InputError, match=f"^x: {line}$"):
        backend.infer({**inputs, "x": x})
    x.free()
    fused = backend.infer_device(inputs)["fused"]
    with pytest.raises(InputError, match=f"^stream: {line}$"):
        fused.__dlpack__(stream=there)
    assert cases.same(backend.infer(inputs), 1)
    del device.streams[there]


def test_a_kernel_that_ends_the_context_is_one_line_for_every_call(bundle, library, device, cases):
    backend = TensorRTBackend(bundle)
    ticket = backend.submit(cases.inputs(1))
    device.crash(backend._compute.handle)
    later = backend.submit(cases.inputs(2))
    for call in (later.result, lambda: backend.infer(cases.inputs(3)), backend.close):
        with pytest.raises(TcmoaError, match="Start the program again") as caught:
            call()
        assert "\n" not in str(caught.value)
    backend.close()
    del call, caught, ticket, later
    device.memories.clear()
    for kind in (device.streams, device.events, device.executables, device.graphs):
        kind.clear()
