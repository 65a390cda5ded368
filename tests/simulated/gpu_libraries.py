"""Simulated PyCUDA, CuPy, OpenCV with CUDA, PyTorch with CUDA, PyNvVideoCodec and PyAV's hardware frames.

Only what the programs in examples/ use. Arrays are memory of the simulated GPU; work is queued in simulated streams and
runs as late as it may, so that a program that does not wait reads poisoned memory.
"""
# ruff: noqa: N802
# The names are those of the libraries.

import contextlib
import sys
import types

import numpy as np

from simulated.cases import ByDlpack, read
from simulated.cuda_runtime import LEGACY
from tcmoa_runtime.gpu import dlpack


class Memories:
    """GPU memory and streams of a library; `close` frees them."""

    def __init__(self, device):
        self.device, self.held, self.streams = device, [], []

    def allocate(self, nbytes):
        memory = self.device.array(np.full(nbytes, 0xA5, np.uint8))
        self.held.append(memory)
        return memory

    def stream(self):
        self.streams.append(self.device.stream())
        return self.streams[-1]

    def upload(self, memory, values, stream):
        values = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.device.queue(stream, lambda: memory.content.__setitem__(slice(0, len(values)), values))

    def download(self, target, pointer, stream):
        def copy():
            found = self.device.find(pointer, target.nbytes, 0)
            target[...] = np.frombuffer(found.copy(), target.dtype).reshape(target.shape)

        self.device.queue(stream, copy)

    def synchronize(self, stream):
        self.device.drain(self.device.stream_of(stream))

    def close(self):
        self.device.finish()
        for memory in self.held:
            self.device.release(memory)
        for stream in self.streams:
            del self.device.streams[stream]


def install_modules(monkeypatch, **modules):
    """Put modules into sys.modules; `__` in a name is a dot. A module becomes an attribute of its parent."""
    for name, contents in modules.items():
        dotted = name.replace("__", ".")
        module = types.ModuleType(dotted)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, dotted, module)
        parent, _, child = dotted.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


# --- PyCUDA ------------------------------------------------------------------------------------------------


def install_pycuda(monkeypatch, memories):
    class Stream:
        def __init__(self):
            self.handle = memories.stream()

        def synchronize(self):
            memories.synchronize(self.handle)

    class GPUArray:
        def __init__(self, shape, dtype, *, base=None, gpudata=None):
            self.shape, self.dtype, self.base = tuple(shape), np.dtype(dtype), base
            self.nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
            self.memory = memories.allocate(self.nbytes) if gpudata is None else None
            self.gpudata = self.memory.address if gpudata is None else gpudata

        def get_async(self, *, stream, ary):
            memories.download(ary, self.gpudata, stream.handle)
            return ary

        @property
        def __cuda_array_interface__(self):  # like PyCUDA's: it does not name a stream
            strides = np.empty(self.shape, self.dtype).strides
            return {
                "shape": self.shape,
                "strides": strides,
                "data": (self.gpudata, False),
                "typestr": self.dtype.str,
                "stream": None,
                "version": 3,
            }

    def to_gpu_async(ary, *, stream):
        array = GPUArray(ary.shape, ary.dtype)
        memories.upload(array.memory, ary, stream.handle)
        return array

    install_modules(
        monkeypatch,
        pycuda={},
        pycuda__autoprimaryctx={},
        pycuda__driver={"Stream": Stream, "pagelocked_empty": np.zeros},
        pycuda__gpuarray={"GPUArray": GPUArray, "to_gpu_async": to_gpu_async},
    )


# --- CuPy --------------------------------------------------------------------------------------------------


def install_cupy(monkeypatch, memories):
    current = [LEGACY]

    class Stream:
        def __init__(self, *, non_blocking):
            assert non_blocking
            self.ptr = memories.stream()

        def __enter__(self):
            current.append(self.ptr)

        def __exit__(self, *_):
            current.pop()

    class NdArray:
        def __init__(self, pointer, shape, dtype, owner):
            self.pointer, self.shape, self.dtype, self.owner = pointer, tuple(shape), np.dtype(dtype), owner
            self.nbytes = int(np.prod(self.shape)) * self.dtype.itemsize

        def __dlpack_device__(self):
            return dlpack.CUDA, 0

        def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
            order(memories.device, current[-1], stream)
            return dlpack.export_tensor(self, self.pointer, 0, self.dtype.name, self.shape)

    def asarray(values):
        memory = memories.allocate(values.nbytes)
        memories.upload(memory, values, current[-1])
        return NdArray(memory.address, values.shape, values.dtype, memory)

    def from_dlpack(array):
        capsule = array.__dlpack__(stream=current[-1], max_version=(1, 1))
        return NdArray(array.pointer, array.shape, array.dtype, capsule)

    def asnumpy(array):
        values = np.empty(array.shape, array.dtype)
        memories.download(values, array.pointer, current[-1])
        memories.synchronize(current[-1])
        return values

    install_modules(
        monkeypatch,
        cupy={"ndarray": NdArray, "asarray": asarray, "from_dlpack": from_dlpack, "asnumpy": asnumpy},
        cupy__cuda={"Stream": Stream},
    )


def order(device, producer, consumer):
    """Make a consumer's stream wait for what is queued in the producer's, as an owner of a DLPack tensor does."""
    _, event = device.cudaEventCreateWithFlags(2)
    device.cudaEventRecord(event, producer)
    record = device.events.pop(event).record
    device.queue(LEGACY if consumer is None else consumer, lambda: device.reach(record))


# --- PyTorch -----------------------------------------------------------------------------------------------


def install_torch(monkeypatch, memories):
    """The installed PyTorch, whose tensors on the "GPU" are on the host; only DLPack crosses to the simulated GPU."""
    import torch

    current = [LEGACY]

    class OnHost(torch.Tensor):
        def to(self, target, *args, **kwargs):
            if target == "cuda":
                return self.clone().as_subclass(OnDevice)
            return super().to(target, *args, **kwargs)

    class OnDevice(torch.Tensor):
        def cpu(self):
            return self.as_subclass(torch.Tensor)

        def __dlpack_device__(self):
            return dlpack.CUDA, 0

        def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
            plain = self.as_subclass(torch.Tensor)
            memory = memories.allocate(plain.nbytes)
            memories.upload(memory, plain.numpy(), current[-1])
            order(memories.device, current[-1], stream)
            held = ByDlpack.__new__(ByDlpack)
            held.kind, held.index, held.versioned, held.asked, held.ready = dlpack.CUDA, 0, True, [], None
            held.array = np.lib.stride_tricks.as_strided(
                np.frombuffer(memory.content, np.uint8), plain.shape, plain.stride()
            )
            return held.__dlpack__(stream=stream, max_version=max_version)

    class Stream:
        def __init__(self):
            self.cuda_stream = memories.stream()

    @contextlib.contextmanager
    def stream(entered):
        current.append(entered.cuda_stream)
        yield
        current.pop()

    def from_dlpack(array):
        if not hasattr(array, "__dlpack__"):  # a capsule
            memories.synchronize(current[-1])
            managed = dlpack._Managed.from_address(dlpack._get_pointer(array, b"dltensor"))
            managed.tensor.device.type = dlpack.CPU
            return torch.from_dlpack(array).as_subclass(OnDevice)
        capsule = array.__dlpack__(stream=current[-1], max_version=(1, 1))
        memories.synchronize(current[-1])  # operations of these tensors run at once
        values = torch.from_numpy(read(memories.device, array).copy())
        del capsule
        return values.as_subclass(OnDevice)

    simulated = types.ModuleType("torch")
    vars(simulated).update({name: getattr(torch, name) for name in dir(torch) if not name.startswith("__")})
    vars(simulated).update(
        from_numpy=lambda array: torch.from_numpy(array).as_subclass(OnHost),
        from_dlpack=from_dlpack,
        cuda=types.SimpleNamespace(Stream=Stream, stream=stream),
    )
    monkeypatch.setitem(sys.modules, "torch", simulated)


# --- OpenCV ------------------------------------------------------------------------------------------------


def install_opencv(monkeypatch, memories):
    """OpenCV's GpuMat: rows are padded to 512 bytes, as by cudaMallocPitch."""
    import cv2

    pitch_step = 512

    class Stream:
        def __init__(self):
            self.address = memories.stream()

        def cudaPtr(self):
            return self.address

        def waitForCompletion(self):
            memories.synchronize(self.address)

    class GpuMat:
        def __init__(self, shape=None, pointer=None, step=None):
            self.shape, self.pointer, self.step = shape, pointer, step

        def upload(self, frame, stream):
            self.shape = frame.shape
            row = frame[0].nbytes
            self.step = -(-row // pitch_step) * pitch_step
            rows = np.full((len(frame), self.step), 0xEE, np.uint8)
            rows[:, :row] = frame.reshape(len(frame), row)
            memory = memories.allocate(rows.nbytes)
            memories.upload(memory, rows, stream.address)
            self.pointer = memory.address

        def download(self, stream):
            result = np.zeros(self.shape, np.uint8)
            memories.download(result, self.pointer, stream.address)
            return result

        def size(self):
            return self.shape[1], self.shape[0]

        def channels(self):
            return self.shape[2]

        def cudaPtr(self):
            return self.pointer

    def create(rows, cols, type, cudaMemoryAddress, step=None):
        assert type == cv2.CV_8UC3
        return GpuMat((rows, cols, 3), cudaMemoryAddress, step or cols * 3)

    monkeypatch.setattr(
        cv2,
        "cuda",
        types.SimpleNamespace(Stream=Stream, GpuMat=GpuMat, createGpuMatFromCudaMemory=create),
    )


# --- decoders ----------------------------------------------------------------------------------------------


class DecodedFrame(ByDlpack):
    """A frame of PyNvVideoCodec: `__dlpack__` takes a stream only, and the frame is complete."""

    def __dlpack__(self, stream=None):
        return super().__dlpack__(stream=stream)


def install_pynvvideocodec(monkeypatch, memories, videos):
    """`videos`: frames uint8 [H, W, 3] by path."""

    class SimpleDecoder:
        def __init__(self, path, *, gpu_id, use_device_memory, output_color_type):
            assert (gpu_id, use_device_memory, output_color_type) == (0, True, "rgb")
            self.frames = videos[path]

        def __len__(self):
            return len(self.frames)

        def __getitem__(self, index):
            frame = DecodedFrame(memories.device, self.frames[index], versioned=False)
            memories.held.append(frame.memory)
            return frame

    install_modules(
        monkeypatch,
        PyNvVideoCodec={
            "SimpleDecoder": SimpleDecoder,
            "OutputColorType": types.SimpleNamespace(RGB="rgb", NATIVE="native"),
        },
    )


class HardwarePlane(ByDlpack):
    """A plane of PyAV's CUDA frame: padded, without `shape`, written in the default stream."""

    shape = None

    def __init__(self, memories, values):
        rows, row = len(values), values[0].nbytes
        self.values, pitch = values, -(-row // 256) * 256
        super().__init__(memories.device, np.zeros((rows, pitch), np.uint8), versioned=False)
        memories.held.append(self.memory)
        padded = np.full((rows, pitch), 0xEE, np.uint8)
        padded[:, :row] = values.reshape(rows, row)
        memories.upload(self.memory, padded, LEGACY)
        strides = (pitch, *values.strides[1:])
        self.array = np.lib.stride_tricks.as_strided(self.array, values.shape, strides)

    def __dlpack__(self, *, stream=None):
        if stream is not None:
            raise NotImplementedError("CUDA stream synchronization is not supported.")
        return super().__dlpack__(stream=stream)


class HardwareFrame:
    """A frame of PyAV's CUDA decoder, in NV12."""

    def __init__(self, memories, luma, chroma):
        self.planes = [HardwarePlane(memories, luma), HardwarePlane(memories, chroma)]
