"""Arrays in GPU memory that are known by their address."""

from __future__ import annotations

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.device_arrays import TYPESTRS, contiguous_strides
from tcmoa_runtime.gpu.stream_handles import stream_handle
from tcmoa_runtime.typing import StreamLike


class CudaMemory:
    """An array at an address in GPU memory, for libraries without DLPack and `__cuda_array_interface__`.

    Such are a `GpuMat` before OpenCV 4.13, allocations of PyCUDA, surfaces of decoders and DeepStream. Nothing is
    copied or freed: the memory must stay valid until the fuser has read it, which `owner` is for.

        frame = CudaMemory(mat.cudaPtr(), (480, 640, 3), row_pitch=mat.step, owner=mat)

    Attributes:
        pointer: Address of the first element.
        shape: [H, W, C], [B, H, W, C], or [gh, gw] of a prompt map.
        dtype: `uint8` or `float32`.
        owner: Object that is kept alive with this one.
    """

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        dtype: str = "uint8",
        *,
        row_pitch: int | None = None,
        stream: StreamLike | None = None,
        owner: object = None,
    ) -> None:
        """Describe the memory.

        Args:
            pointer: Address of the first element.
            shape: Size of each axis.
            dtype: `uint8` or `float32`.
            row_pitch: Bytes from one row of pixels to the next; None: rows follow each other.
            stream: CUDA stream in which the memory is written; None: the caller orders its work by other means, e.g.
                the `stream` of the fuser.
            owner: Object to keep alive, which owns the memory.

        Raises:
            InputError: The type is another one, or the pitch is less than a row.
        """
        if dtype not in TYPESTRS:
            raise InputError(f"{dtype!r}; expected one of {', '.join(TYPESTRS)}", subject="dtype")
        self.pointer, self.shape, self.dtype, self.owner = pointer, tuple(shape), dtype, owner
        strides = list(contiguous_strides(self.shape, int(TYPESTRS[dtype][-1])))
        row_axis = max(0, len(strides) - (3 if len(strides) > 2 else 2))
        if row_pitch is not None:
            if row_pitch < strides[row_axis]:
                raise InputError(
                    f"{row_pitch} bytes; expected at least {strides[row_axis]}, a row of {list(self.shape)}",
                    subject="row_pitch",
                )
            strides[row_axis] = row_pitch
            for axis in reversed(range(row_axis)):
                strides[axis] = self.shape[axis + 1] * strides[axis + 1]
        self._strides = tuple(strides)
        self._stream = None if stream is None else stream_handle(stream) or 1

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {
            "shape": self.shape,
            "typestr": TYPESTRS[self.dtype],
            "data": (self.pointer, False),
            "version": 3,
            "strides": self._strides,
            "stream": self._stream,
        }
