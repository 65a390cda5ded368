"""Fusing frames with a loaded bundle."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from types import TracebackType
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.backends.base import Backend, DeviceBackend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT, X, Y
from tcmoa_runtime.errors import InputError, NoPromptError
from tcmoa_runtime.fit import FIT_MODES
from tcmoa_runtime.gpu.device_arrays import DeviceArray, host_array, is_on_gpu, num_axes
from tcmoa_runtime.gpu.stream_handles import stream_handle
from tcmoa_runtime.host_fusion import AnyImage, HostFusion, expand_prompts, held_inputs
from tcmoa_runtime.images import DEFAULT_PERCENTILES, as_array, check_percentiles, format_size
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.native_calls import native_calls
from tcmoa_runtime.options.option import check_choice
from tcmoa_runtime.prompts import mask_share
from tcmoa_runtime.typing import (
    BackendChoice,
    FitMode,
    Frame,
    FrameSize,
    ImageLike,
    Percentiles,
    PromptLike,
    PromptMap,
    SourceName,
    StreamLike,
)

_log = get_logger("bundle")


class Fuser:
    """A loaded bundle that fuses frames: `fused = fuser(x, y, scale=1.0, shift=0.0)`.

    Frames are images [H, W, C] in the bundle's channel order, of any size (`fit`). `tcmoa_runtime.images` describes
    how other arrays are converted (gray, alpha, uint16). [B, H, W, C] fuses B frames, in batches of the bundle's size.
    `scale` and `shift` are alpha and beta of Eq. 8: a number, a map [gh, gw] (`fuser.grid_of`), a map for each frame
    [B, gh, gw], or None for the bundle's default.

    With a backend on a GPU, frames may be in device memory too (`__dlpack__`, `__cuda_array_interface__` or
    `tcmoa_runtime.gpu.cuda_memory.CudaMemory`): uint8 [H, W, C] in the graph's size and channels, or the bundle's own
    batch [B, H, W, C]; rows may be padded, and a source of one channel may be [H, W]. The result is then a
    `DeviceArray`, which documents how long it is valid.

    A bundle with an alignment (`tcmoa calibrate align`) warps one source first, which needs frames in host memory.

    A fuser may be used from several threads, also from daemon threads: the end of the interpreter waits for the frames
    that are being fused. Use it as a context manager, or call `close`.

    A network that was wrapped (`tcmoa wrap`) has no prompt (`bundle.has_prompt`): `scale` and `shift` are refused.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        fit: FitMode = "auto",
        percentiles: Percentiles = DEFAULT_PERCENTILES,
    ) -> None:
        """Combine a checked bundle with a loaded backend; most programs call `Fuser.load`."""
        self.bundle, self.backend = bundle, backend
        check_choice("fit", fit, FIT_MODES)
        self.fit = fit
        self._host = HostFusion(bundle, backend, fit, check_percentiles(percentiles))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: BackendChoice = "auto",
        *,
        threads: int | None = None,
        fit: FitMode = "auto",
        percentiles: Percentiles = DEFAULT_PERCENTILES,
        trust_engines: bool = False,
    ) -> Self:
        """Check a bundle and load it.

        Args:
            path: The folder of the bundle.
            backend: `auto`, or one of `tcmoa_runtime.backends.pick.BACKENDS`.
            threads: Number of CPU threads of the backend; all cores if None.
            fit: How frames of another size than the bundle's are fused. `exact` refuses them. `resize` resizes them and
                the result back, which loses detail. `pad` repeats the edge of smaller frames and crops the result.
                `tile` pads smaller frames and cuts larger ones into overlapping tiles that are blended, see
                `tcmoa_runtime.fit`. `auto` is `tile`, or `resize` for a graph that resizes its frames itself.
            percentiles: Percentiles of 16-bit frames that become black and white.
            trust_engines: Load engines that this user did not build, too. An engine is native code.

        Raises:
            BundleError: The bundle must not be loaded.
            InputError: An option is wrong.
            MissingError: The backend's package or device is missing.
        """
        check_percentiles(percentiles)
        start = time.perf_counter()
        bundle = Bundle.open(path)
        loaded = cls(
            bundle,
            load_backend(bundle, backend, threads=threads, trust_engines=trust_engines),
            fit=fit,
            percentiles=percentiles,
        )
        _log.info(
            "%s: loaded in %.2f s, %s for %s",
            bundle.spelling,
            time.perf_counter() - start,
            bundle.precision,
            format_size(bundle.size),
            extra={"event": "bundle-loaded", "bundle": bundle.spelling, "backend": loaded.backend.name},
        )
        return loaded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the backend; later calls raise TcmoaError."""
        self.backend.close()

    @property
    def size(self) -> FrameSize:
        """(height, width) of the bundle's frames."""
        return self.bundle.size

    @property
    def grid(self) -> tuple[int, int]:
        """(gh, gw) of prompt maps; (0, 0) if the network has no prompt."""
        return self.bundle.contract.grid

    @overload
    def __call__(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
        stream: StreamLike,
    ) -> DeviceArray: ...

    @overload
    def __call__(
        self,
        x: ImageLike,
        y: ImageLike,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
    ) -> Frame: ...

    @overload
    def __call__(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
        stream: StreamLike | None = None,
    ) -> Frame | DeviceArray: ...

    def __call__(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
        stream: StreamLike | None = None,
    ) -> Frame | DeviceArray:
        """Fuse two frames, or two batches of frames.

        Args:
            x: The first source, [H, W, C] or [B, H, W, C].
            y: The second source, like x.
            scale: Alpha of Eq. 8.
            shift: Beta of Eq. 8.
            stream: The caller's CUDA stream, if x or y is in device memory: its handle, or an object of its library.
                The frame waits for the work that is queued there, and work that is queued there afterwards finds the
                result. None: the arrays say when they are ready, and readers wait for the stream of the result.

        Returns:
            uint8 [H, W, 3] or [B, H, W, 3]; a `DeviceArray` if x or y is in device memory.

        Raises:
            InputError: A source or prompt has a wrong shape, type or value, or `stream` is no CUDA stream.
            NoPromptError: There is a prompt, but the network has none.
        """
        with native_calls:
            return self._fuse(x, y, scale, shift, stream)[0]

    def with_extremes(
        self, x: ImageLike, y: ImageLike, held: NDArray[np.float32] | None = None
    ) -> tuple[Frame, NDArray[np.float32]]:
        """Fuse like a call with a network that stretches S pictures by their own minimum and maximum.

        Args:
            x: The first source, [H, W, C] or [B, H, W, C].
            y: The second source, like x.
            held: Minimum and maximum that the pictures are stretched by in place of their own, float32 [S, 2].

        Returns:
            The fused frame, and the pictures' own minimum and maximum, float32 [S, 2] or [B, S, 2]. S is 0 for a
            network that stretches no picture by its own extremes.

        Raises:
            InputError: A source or `held` has a wrong shape, type or value.
        """
        shape = (self.bundle.contract.stretches, 2)
        if held is not None and np.shape(held) != shape:
            raise InputError(f"shape {list(np.shape(held))}; expected {list(shape)}", subject="held")
        if held is not None and not np.isfinite(held).all():
            raise InputError("holds NaN or infinity; expected finite numbers", subject="held")
        with native_calls:
            result = self._host.fuse(self._to_host(x, X), self._to_host(y, Y), None, None, held)
        return result.fused, result.extremes

    @overload
    def with_prompt(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
        stream: StreamLike,
    ) -> tuple[DeviceArray, DeviceArray]: ...

    @overload
    def with_prompt(
        self,
        x: ImageLike,
        y: ImageLike,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
    ) -> tuple[Frame, NDArray[np.float32]]: ...

    @overload
    def with_prompt(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
        stream: StreamLike | None = None,
    ) -> tuple[Frame | DeviceArray, NDArray[np.float32] | DeviceArray]: ...

    def with_prompt(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
        stream: StreamLike | None = None,
    ) -> tuple[Frame | DeviceArray, NDArray[np.float32] | DeviceArray]:
        """Fuse like a call, and also return the prompts of the K TC-MoAs after Eq. 8.

        Returns:
            The fused frame, and float32 [K, 2, gh, gw] ([B, K, 2, gh, gw] for a batch): prompt_x and prompt_y.

        Raises:
            InputError: As for a call, or the bundle was exported without the prompt output.
            NoPromptError: The network has none.
        """
        if not self.bundle.has_prompt:
            raise NoPromptError("with_prompt", remedy="Call the fuser itself")
        if not self.bundle.contract.with_prompt:
            raise InputError(
                "has no prompt output",
                subject=self.bundle.path,
                remedy="Export the bundle again with {with_prompt}",
                settings={"with_prompt": True},
            )
        with native_calls:
            fused, prompt = self._fuse(x, y, scale, shift, stream)
        if prompt is None:
            raise TypeError("the backend returned no prompt although the contract has one")
        return fused, prompt

    def region(self, mask: ImageLike, inside: float, outside: float) -> PromptMap:
        """Make a prompt map from a mask.

        Args:
            mask: [H, W], bool or 0..1.
            inside: Value where the mask is 1.
            outside: Value where the mask is 0. Tokens that the mask covers in part get a value in between.

        Returns:
            float32 [gh, gw].

        Raises:
            InputError: The mask has another size or other values.
            NoPromptError: The network has no prompt.
        """
        if not self.bundle.has_prompt:
            raise NoPromptError("mask")
        array = as_array(mask, "mask")
        is_own = array.ndim != 2 or not array.size or array.shape in (self.size, self.grid)
        size = self.size if is_own else array.shape
        try:
            grid = self.grid_of((size[0], size[1]))
        except InputError as error:  # the mask of a frame that is refused
            raise error.with_subject("mask") from error
        share = mask_share(array, "mask", (size[0], size[1]), grid, self.bundle.map_token).astype(np.float64)
        return (outside + (inside - outside) * share).astype(np.float32)

    def grid_of(self, size: FrameSize) -> tuple[int, int]:
        """Return (gh, gw) of prompt maps for frames of `size` (height, width).

        Raises:
            InputError: Frames of that size are refused, see `fit`.
        """
        return self._host.grid_of(size)

    def check_sizes(self, x: FrameSize, y: FrameSize) -> None:
        """Check whether frames of two sizes, each (height, width), can be fused.

        Raises:
            InputError: A size is refused, see `fit` of `Fuser.load`.
        """
        self._host.check_sizes(x, y)

    def aligned(self, frame: Frame, name: SourceName) -> Frame:
        """Warp a frame [H, W, C] of source `name` by the bundle's alignment; the size of the frame is kept.

        Use it to show or compare a source beside the result. Returns `frame` itself if its source is not aligned.
        """
        with native_calls:
            return self._host.aligned(frame, name)

    def _fuse(
        self,
        x: AnyImage,
        y: AnyImage,
        scale: PromptLike | None,
        shift: PromptLike | None,
        stream: StreamLike | None,
    ) -> tuple[Frame | DeviceArray, NDArray[np.float32] | DeviceArray | None]:
        handle = None if stream is None else stream_handle(stream)
        if isinstance(self.backend, DeviceBackend) and (is_on_gpu(x) or is_on_gpu(y)):
            if self.bundle.alignment is not None:
                raise InputError(
                    "aligns its sources, which needs frames in host memory",
                    subject=self.bundle.path,
                    remedy="Copy the frames to the host, or align them on the GPU and fuse with a bundle "
                    "without alignment",
                )
            return self._fuse_on_device(self.backend, x, y, scale, shift, handle)
        x, y = self._to_host(x, X), self._to_host(y, Y)
        if handle is not None:
            raise InputError(
                f"given with x of {type(x).__name__} and y of {type(y).__name__}; expected arrays in GPU memory",
                subject="stream",
                remedy="Leave it out",
            )
        result = self._host.fuse(x, y, scale, shift)
        return result.fused, result.prompt

    def _to_host(self, image: AnyImage, name: SourceName) -> AnyImage:
        """Return an image in host memory; one in GPU memory is copied if its library does that."""
        if not is_on_gpu(image):
            return image
        if hasattr(image, "__array__"):
            # PyTorch and CuPy raise: they copy only where they are asked to.
            with suppress(TypeError, ValueError, RuntimeError):
                return np.asarray(image)
        raise InputError(
            f"a {type(image).__name__} in GPU memory, but the bundle is loaded with {self.backend.name}; "
            "expected an array in host memory",
            subject=name,
            remedy="Build an engine with `tcmoa build` and load it with {backend}, or copy the array to the host",
            settings={"backend": "tensorrt"},
        )

    def _fuse_on_device(
        self,
        backend: DeviceBackend,
        x: AnyImage,
        y: AnyImage,
        scale: PromptLike | None,
        shift: PromptLike | None,
        stream: int | None,
    ) -> tuple[DeviceArray, DeviceArray | None]:
        """Fuse arrays in device memory; they are not converted, resized or padded."""
        contract = self.bundle.contract
        axes_x, axes_y = num_axes(x, X), num_axes(y, Y)
        is_plane_x = axes_x == 2 and contract.x_channels == 1
        is_plane_y = axes_y == 2 and contract.y_channels == 1
        if axes_x + is_plane_x != axes_y + is_plane_y:
            raise InputError(f"x has {axes_x} axes and y {axes_y}; expected the same number of frames")
        is_single = axes_x + is_plane_x == 3
        result = backend.infer_device(
            {
                X: x if is_on_gpu(x) else _with_graph_axes(host_array(x, X), is_single, is_plane_x),
                Y: y if is_on_gpu(y) else _with_graph_axes(host_array(y, Y), is_single, is_plane_y),
                **expand_prompts(self.bundle, scale, shift, contract.batch, self.grid),
                **held_inputs(contract, None),
            },
            stream,
        )
        fused, prompt = result[FUSED], result.get(PROMPT)
        if is_single:
            return fused.without_batch_axis(), None if prompt is None else prompt.without_batch_axis()
        return fused, prompt


def _with_graph_axes(frame: NDArray[np.generic], is_single: bool, is_plane: bool) -> NDArray[np.generic]:
    """[1, H, W, C] of a single frame [H, W, C] or [H, W]; batches are returned unchanged."""
    frame = frame[..., None] if is_plane else frame
    return frame[None] if is_single else frame
