"""Arrays in GPU memory as users have them: padded rows, addresses, streams of other libraries; simulated, no GPU."""

import shutil
import types

import numpy as np
import pytest

from micro_model import frames
from simulated.cases import ByDlpack, OnGpu, add_engine, read
from tcmoa_runtime import Fuser, InputError
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.gpu.cuda_memory import CudaMemory
from tcmoa_runtime.gpu.stream_handles import stream_handle

pytest_plugins = ["simulated.fixtures"]


@pytest.fixture
def fuser(bundle, backend):
    return Fuser(bundle, backend)


@pytest.fixture
def expected(bundle, cases, pair):
    return Fuser(bundle, cases.reference)(*pair)


def padded(frame, pitch):
    """A buffer whose rows of `frame` are `pitch` bytes apart, as a decoder or cudaMallocPitch leaves them."""
    buffer = np.full((frame.shape[0], pitch), 0xEE, np.uint8)
    buffer[:, : frame[0].size] = frame.reshape(len(frame), -1)
    return buffer


class PaddedDlpack(ByDlpack):
    """A tensor [H, W, C] in a padded buffer, as OpenCV and PyAV give it."""

    def __init__(self, gpu, frame, pitch):
        super().__init__(gpu, padded(frame, pitch))
        strides = (pitch, frame.shape[2], 1)
        self.array = np.lib.stride_tricks.as_strided(self.array, frame.shape, strides)


def test_padded_rows_are_copied_once_and_within_the_gpu(fuser, device, pair, expected):
    x, y = pair
    pitch = 512
    by_interface = OnGpu(device, padded(x, pitch), strides=(pitch, 3, 1), shape=x.shape)
    by_dlpack = PaddedDlpack(device, x, pitch)
    by_address = CudaMemory(by_interface.memory.address, x.shape, row_pitch=pitch)
    for given in (by_interface, by_dlpack, by_address):
        before = len(device.calls)
        fused = fuser(given, y)
        assert read(device, fused).tobytes() == expected.tobytes()
        assert device.calls[before:].count("cudaMemcpy2DAsync") == 1
    by_interface.free()
    by_dlpack.free()


OTHER_ORDERS = [
    ((100, 130, 3), (-390, 3, 1)),  # upside down
    ((100, 130, 3), (389, 3, 1)),  # rows overlap
    ((100, 130, 3), (1, 300, 1)),
    ((100, 130, 3), (390, 3, -1)),  # bgr[..., ::-1]
    ((100, 130, 3), (130, 1, 13000)),  # planes, seen as [H, W, C]
    ((100, 130, 3), (520, 4, 1)),  # three of four channels
    ((1, 100, 130, 3), (0, 0, 3, 1)),
]


def test_arrays_in_another_order_are_refused(fuser, device, pair):
    for shape, strides in OTHER_ORDERS:
        x = OnGpu(device, np.zeros((100, 600), np.uint8), shape=shape, strides=strides)
        y = pair[1] if len(shape) == 3 else pair[1][None]
        with pytest.raises(InputError) as caught:
            fuser(x, y)
        wanted = [390, 3, 1] if len(shape) == 3 else [39000, 390, 3, 1]
        assert str(caught.value) == (
            f"x: strides {list(strides)}; expected {wanted} (C-contiguous), or padded rows. "
            "Make a contiguous copy."
        )
        x.free()


def test_channels_first_are_refused_with_what_to_do(fuser, device, pair):
    x = OnGpu(device, np.ascontiguousarray(pair[0].transpose(2, 0, 1)))
    with pytest.raises(InputError) as caught:
        fuser(x, pair[1])
    assert str(caught.value) == (
        "x: uint8 [3, 100, 130]; expected uint8 [1, 100, 130, 3]. "
        "Move the channels to the last axis and make a contiguous copy."
    )
    x.free()


def test_a_stream_orders_frames_and_results_without_waiting(fuser, device, pair, expected):
    """Arrays of PyCUDA do not name their stream, so the caller does."""
    stream = device.stream()
    x, y = (OnGpu(device, np.zeros_like(a)) for a in pair)
    for array, values in ((x, pair[0]), (y, pair[1])):
        device.queue(stream, lambda a=array, v=values: a.memory.content.__setitem__(slice(None), v.ravel()))
    before = len(device.calls)
    fused = fuser(x, y, stream=types.SimpleNamespace(handle=stream))
    assert not {"cudaStreamSynchronize"} & set(device.calls[before:])
    assert fused.stream == stream
    assert fused.nbytes == expected.nbytes
    kept = []
    pointer, nbytes = fused.pointer, fused.nbytes
    device.queue(stream, lambda: kept.append(device.find(pointer, nbytes, 0).copy()))
    for array in (x, y):
        device.queue(stream, lambda a=array: a.memory.content.fill(9))  # the caller's next frames
    del fused
    fuser(*pair)  # takes the slot again, after the caller's work
    fuser(*pair)
    device.finish()
    assert kept[0].tobytes() == expected.tobytes()
    x.free()
    y.free()
    del device.streams[stream]


def test_a_prompt_with_a_stream(bundle, fuser, device, cases, pair):
    _, wanted = Fuser(bundle, cases.reference).with_prompt(*pair)
    stream = device.stream()
    x = OnGpu(device, pair[0])
    fused, prompt = fuser.with_prompt(x, pair[1], stream=stream)
    assert prompt.stream == stream
    assert read(device, prompt).tobytes() == wanted.tobytes()
    del fused, prompt
    device.finish()
    x.free()
    fuser.backend.close()
    del device.streams[stream]


class NewerStream:
    def __cuda_stream__(self):
        return 0, 0x70


class OpenCvStream:
    def cudaPtr(self):  # noqa: N802
        return 0x40


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (0, 0),
        (0x10, 0x10),
        (NewerStream(), 0x70),
        (types.SimpleNamespace(handle=0x20), 0x20),
        (types.SimpleNamespace(ptr=0x30), 0x30),
        (types.SimpleNamespace(cuda_stream=0x50), 0x50),
        (OpenCvStream(), 0x40),
    ],
)
def test_streams_of_all_libraries_are_taken(stream, handle):
    assert stream_handle(stream) == handle


@pytest.mark.parametrize("stream", [-1, True, "s", 1.0, None, types.SimpleNamespace(handle="x")])
def test_what_is_no_stream_is_refused(stream):
    with pytest.raises(InputError) as caught:
        stream_handle(stream)
    assert str(caught.value) == (
        f"stream: {stream!r}; expected a CUDA stream: its handle, or an object with __cuda_stream__"
    )


def test_a_stream_without_arrays_on_the_gpu_is_refused(fuser, pair):
    with pytest.raises(InputError) as caught:
        fuser(*pair, stream=0)
    assert str(caught.value) == (
        "stream: given with x of ndarray and y of ndarray; expected arrays in GPU memory. Leave it out."
    )


def test_a_backend_on_the_cpu_says_what_arrays_on_the_gpu_need(bundle, cases, pair):
    """E.g. where no engine was built, and `auto` has taken another backend."""
    reference = Fuser(bundle, cases.reference)
    x = CudaMemory(256, pair[0].shape)
    for stream in (None, 0):
        with pytest.raises(InputError) as caught:
            reference(x, pair[1], stream=stream)
        assert str(caught.value) == (
            "x: a CudaMemory in GPU memory, but the bundle is loaded with onnxruntime (CPU); expected an array in host "
            "memory. Build an engine with `tcmoa build` and load it with backend='tensorrt', or copy the array to the "
            "host."
        )


class OfJax:
    """An array in GPU memory whose library copies it to the host when it is asked for an array."""

    def __init__(self, values):
        self.values = values

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None):
        raise AssertionError("read on the GPU")

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise TypeError("can't convert a CUDA tensor")
        return self.values


def test_a_backend_on_the_cpu_takes_arrays_that_their_library_copies(bundle, cases, pair, expected):
    reference = Fuser(bundle, cases.reference)
    np.testing.assert_array_equal(reference(OfJax(pair[0]), pair[1]), expected)
    with pytest.raises(InputError, match="y: a OfJax in GPU memory"):
        reference(pair[0], OfJax(None))


def test_an_owner_that_takes_no_stream_is_waited_for_on_the_default_stream(fuser, device, pair, expected):
    """PyAV's planes are written in the legacy default stream, and `__dlpack__` accepts only None."""

    class LikePyAv(ByDlpack):
        def __dlpack__(self, *, stream=None, max_version=None):
            if max_version is not None and not self.versioned:
                raise TypeError("unexpected keyword argument 'max_version'")
            if stream is not None:
                raise NotImplementedError("CUDA stream synchronization is not supported.")
            return super().__dlpack__(stream=stream, max_version=max_version)

    for versioned in (True, False):
        x = LikePyAv(device, np.zeros_like(pair[0]), versioned=versioned)
        device.queue(1, lambda x=x: x.memory.content.__setitem__(slice(None), pair[0].ravel()))
        fused = fuser(x, pair[1])
        device.queue(1, lambda x=x: x.memory.content.fill(9))  # the decoder's next frame waits for the copy
        device.drain(device.stream_of(1))
        assert read(device, fused).tobytes() == expected.tobytes()
        x.free()


def test_a_plane_is_a_source_of_one_channel(exported, library, device, tmp_path):
    """The luma of a decoder, [H, W] with padded rows, without a conversion."""
    copy = Bundle.open(shutil.copytree(exported("gray"), tmp_path / "gray"))
    add_engine(copy)
    x, y = frames(100, 130, 1, seed=1)[0], frames(100, 130, 1, seed=2)[0][..., 0]
    reference = OnnxRuntimeBackend(copy, threads=1)
    expected = Fuser(copy, reference)(x, y)
    reference.close()
    there_x = OnGpu(device, x)
    there_y = OnGpu(device, padded(y[..., None], 256), shape=y.shape, strides=(256, 1))
    with Fuser.load(copy.path, "tensorrt") as fuser:
        assert read(device, fuser(there_x, there_y)).tobytes() == expected.tobytes()
        assert read(device, fuser(there_x, y)).tobytes() == expected.tobytes()
        with pytest.raises(InputError, match="x has 2 axes and y 3"):
            fuser(there_y, x)
    there_x.free()
    there_y.free()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"dtype": "int8"}, "dtype: 'int8'; expected one of uint8, float32"),
        ({"row_pitch": 389}, "row_pitch: 389 bytes; expected at least 390, a row of [100, 130, 3]"),
        (
            {"stream": "s"},
            "stream: 's'; expected a CUDA stream: its handle, or an object with __cuda_stream__",
        ),
    ],
)
def test_wrong_descriptions_of_memory_are_refused(change, line):
    with pytest.raises(InputError) as caught:
        CudaMemory(256, (100, 130, 3), **change)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("shape", "dtype", "pitch", "strides"),
    [
        ((4, 6, 3), "uint8", None, (18, 3, 1)),
        ((2, 4, 6, 3), "uint8", 32, (128, 32, 3, 1)),
        ((4, 6), "uint8", 8, (8, 1)),
        ((2, 3), "float32", None, (12, 4)),
    ],
)
def test_memory_describes_itself(shape, dtype, pitch, strides):
    memory = CudaMemory(256, shape, dtype, row_pitch=pitch, stream=0)
    interface = memory.__cuda_array_interface__
    assert interface["strides"] == strides
    assert interface["data"] == (256, False)
    assert interface["stream"] == 1


def test_a_result_is_copied_to_the_host(bundle, library, device, pair, expected):
    with Fuser.load(bundle.path, "tensorrt") as fuser:
        x = OnGpu(device, pair[0])
        stream = device.stream()
        fused, other = fuser(x, pair[1], stream=stream), fuser(x, pair[1])
        for result in (fused, other):
            copied = result.copy_to_host()
            assert copied.dtype == np.uint8
            np.testing.assert_array_equal(copied, expected)
        del fused, result
    np.testing.assert_array_equal(other.copy_to_host(), expected)  # its stream is destroyed
    assert device.pageable_copies == 3
    device.pageable_copies = 0
    x.free()
    del device.streams[stream]


def test_the_axes_of_any_array_are_found(fuser, device, pair, expected):
    """Planes of PyAV have only DLPack, without a shape; some libraries have a method of that name."""

    class WithoutShape(ByDlpack):
        shape = None

    class WithMethod(ByDlpack):
        def shape(self):
            return self.array.shape

    for kind in (WithoutShape, WithMethod):
        x = kind(device, pair[0])
        assert read(device, fuser(x, pair[1])).tobytes() == expected.tobytes()
        x.free()


def test_an_array_whose_axes_cannot_be_found_is_refused(fuser, pair):
    class Broken:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, *, stream=None):
            raise RuntimeError("no surface\nand more")

    with pytest.raises(InputError) as caught:
        fuser(Broken(), pair[1])
    assert str(caught.value) == "x: a Broken that cannot be read (no surface)"
