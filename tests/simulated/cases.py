"""Engines, inputs, arrays and workloads for tests of the TensorRT backend on a simulated GPU."""

import random

import numpy as np

from micro_model import frames
from simulated import tensorrt_module
from simulated.tensorrt_module import engine_bytes
from tcmoa_runtime.backends.onnxruntime import OnnxRuntimeBackend
from tcmoa_runtime.engine import BuilderGpu, EngineDescription, write_engine
from tcmoa_runtime.engine_trust import record_built
from tcmoa_runtime.gpu import dlpack

GPU = BuilderGpu("Simulated GPU", "8.9")


def add_engine(bundle, *, data=None, stripped=False, **options):
    flavor = options.pop("flavor", "rtx")
    options = {"version": tensorrt_module.VERSIONS[flavor], "precision": "fp32", "gpu": GPU, **options}
    content = engine_bytes(bundle, stripped=stripped) if data is None else data
    description = EngineDescription(flavor=flavor, stripped=stripped, **options)
    engine = write_engine(bundle, content, description)
    record_built(engine)
    return engine


class Cases:
    """Inputs by number, and their results with the onnxruntime backend."""

    def __init__(self, bundle):
        self.contract = bundle.contract
        self.reference = OnnxRuntimeBackend(bundle, threads=1)
        self.x = frames(self.contract.height, self.contract.width, 6, seed=5)
        self.y = frames(self.contract.height, self.contract.width, 6, seed=6)
        self.known = {}

    def inputs(self, number):
        rng = np.random.default_rng(number)
        grid = (1, *self.contract.grid)
        return {
            "x": self.x[number % 6][None],
            "y": self.y[number % 6][None],
            "prompt_scale": rng.uniform(0, 2, grid).astype(np.float32),
            "prompt_shift": rng.uniform(-0.5, 0.5, grid).astype(np.float32),
        }

    def outputs(self, number):
        if number not in self.known:
            self.known[number] = self.reference.infer(self.inputs(number))
        return self.known[number]

    def same(self, outputs, number):
        expected = self.outputs(number)
        return outputs.keys() == expected.keys() and all(
            outputs[n].dtype == expected[n].dtype
            and outputs[n].shape == expected[n].shape
            and outputs[n].tobytes() == expected[n].tobytes()
            for n in expected
        )


class OnGpu:
    """A caller's array on the simulated GPU with a `__cuda_array_interface__`."""

    def __init__(self, gpu, values, *, device=0, **changes):
        self.gpu, self.memory = gpu, gpu.array(values, device)
        self.interface = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.memory.address, False),
            "version": 3,
            **changes,
        }

    @property
    def __cuda_array_interface__(self):
        return self.interface

    def free(self):
        self.gpu.release(self.memory)


class ByDlpack:
    """A caller's array on the simulated GPU with `__dlpack__`: NumPy's capsule, relabeled as GPU memory."""

    def __init__(self, gpu, values, *, index=0, kind=dlpack.CUDA, versioned=True, in_memory_of=None):
        self.gpu = gpu
        self.memory = gpu.array(values, index if in_memory_of is None else in_memory_of)
        self.array = np.frombuffer(self.memory.content, values.dtype).reshape(values.shape)
        if not values.flags.c_contiguous:
            self.array = np.lib.stride_tricks.as_strided(self.array, values.shape, values.strides)
        self.kind, self.index, self.versioned, self.asked, self.capsules = kind, index, versioned, [], 0
        self.ready = None

    @property
    def shape(self):
        return self.array.shape

    def __dlpack_device__(self):
        return self.kind, self.index

    def __dlpack__(self, *, stream=None, max_version=None):
        if max_version is not None and not self.versioned:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked.append(stream)
        if self.ready is not None:
            self.ready(stream)
        capsule = self.array.__dlpack__(max_version=max_version)
        name = b"dltensor_versioned" if self.versioned else b"dltensor"
        kind = dlpack._ManagedVersioned if self.versioned else dlpack._Managed
        tensor = kind.from_address(dlpack._get_pointer(capsule, name)).tensor
        tensor.device.type, tensor.device.index = self.kind, self.index
        return capsule

    def free(self):
        self.gpu.release(self.memory)


def read(gpu, array):
    """Copy a result from the simulated GPU by its `__cuda_array_interface__`, after waiting for its stream."""
    interface = array.__cuda_array_interface__
    gpu.cudaStreamSynchronize(interface["stream"])
    size = int(np.prod(interface["shape"])) * np.dtype(interface["typestr"]).itemsize
    found = gpu.find(interface["data"][0], size, array.device)
    return np.frombuffer(found.copy(), interface["typestr"]).reshape(interface["shape"])


def mixed_work(gpu, backend, cases, seed, rounds=14):
    """Take, drop and hold tickets; leave results on the GPU and read them late; write inputs on the GPU late."""
    rng = random.Random(seed)
    stream = gpu.stream()
    held = []
    for number in range(rounds):
        if len(held) == 2:
            ticket, asked = held.pop(0)
            assert cases.same(ticket.result(), asked), "a ticket's frame"
        what = rng.choice(["ticket", "ticket", "dropped", "device", "device"])
        if what == "ticket":
            inputs = {n: a.copy() for n, a in cases.inputs(number).items()}
            held.append((backend.submit(inputs), number))
            for array in inputs.values():
                array.fill(77)  # it was staged, so it may be changed at once
        elif what == "dropped":
            backend.submit(cases.inputs(number))
        else:
            on_the_gpu(gpu, backend, cases, stream, number)
    for ticket, asked in held:
        assert cases.same(ticket.result(), asked), "a ticket's frame"
    gpu.cudaStreamSynchronize(stream)
    del gpu.streams[stream]


def on_the_gpu(gpu, backend, cases, stream, number):
    """Write a frame in its owner's stream, fuse it, read the result in that stream, and overwrite the frame."""
    inputs, kept = cases.inputs(number), {}
    x = OnGpu(gpu, np.zeros_like(inputs["x"]))
    gpu.queue(stream, lambda: x.memory.content.__setitem__(slice(None), inputs["x"].ravel()))
    results = backend.infer_device({**inputs, "x": x}, stream)
    gpu.queue(stream, lambda: x.memory.content.fill(3))
    pointers = {n: (a.__cuda_array_interface__["data"][0], a.dtype, a.shape) for n, a in results.items()}

    def copy():
        for name, (pointer, dtype, shape) in pointers.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            kept[name] = np.frombuffer(gpu.find(pointer, size, 0).copy(), dtype).reshape(shape)

    def compare():
        x.free()
        if not cases.same(kept, number):
            raise AssertionError("a frame on the GPU")

    gpu.queue(stream, copy)
    gpu.queue(stream, compare)
    del results


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
