"""Fusing frames with a loaded bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.alignment import SourceName, Warp
from tcmoa_runtime.backends.base import Backend, DeviceBackend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.device_arrays import DeviceArray, host_array, is_on_gpu, num_axes
from tcmoa_runtime.images import (
    DEFAULT_PERCENTILES,
    as_array,
    check_percentiles,
    format_size,
    resize_frame,
    to_frame,
)
from tcmoa_runtime.prompts import mask_share, prompt_map
from tcmoa_runtime.typing import (
    BackendChoice,
    DeviceArrayLike,
    Frame,
    FrameSize,
    ImageLike,
    Percentiles,
    PromptLike,
    PromptMap,
)

AnyImage: TypeAlias = ImageLike | DeviceArrayLike


class Fuser:
    """A loaded bundle that fuses frames: `fused = fuser(x, y, scale=1.0, shift=0.0)`.

    Frames are images [H, W, C] in the bundle's channel order. `tcmoa_runtime.images` describes how other arrays
    are converted (gray, alpha, uint16). [B, H, W, C] fuses B frames, in batches of the bundle's size.
    `scale` and `shift` are alpha and beta of Eq. 8: a number, a map [gh, gw] (`fuser.grid`), a map for each frame
    [B, gh, gw], or None for the bundle's default.

    With a backend on a GPU, frames may be in device memory too (`__dlpack__` or `__cuda_array_interface__`): uint8
    [H, W, C] exactly as the graph takes them, or the bundle's own batch [B, H, W, C]. The result is then a
    `DeviceArray`, which documents how long it is valid.

    A bundle with an alignment (`tcmoa calibrate align`) warps one source first, which needs frames in host memory.

    A fuser may be used from several threads. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        resize: bool = False,
        percentiles: Percentiles = DEFAULT_PERCENTILES,
    ) -> None:
        """Combine a checked bundle with a loaded backend; most programs call `Fuser.load`."""
        self.bundle, self.backend = bundle, backend
        self._resize, self._percentiles = resize, check_percentiles(percentiles)
        alignment = bundle.alignment
        self._warps: dict[str, Warp] = (
            {} if alignment is None else {alignment.source: Warp.from_alignment(alignment, self.size)}
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: BackendChoice = "auto",
        *,
        threads: int | None = None,
        resize: bool = False,
        percentiles: Percentiles = DEFAULT_PERCENTILES,
    ) -> Self:
        """Check a bundle and load it.

        Args:
            path: The folder of the bundle.
            backend: `auto`, or one of `tcmoa_runtime.backends.pick.BACKENDS`.
            threads: Number of CPU threads of the backend; all cores if None.
            resize: Resize frames of another size to the bundle's, and the result back to the size of x. By default,
                frames of another size are refused.
            percentiles: Percentiles of 16-bit frames that become black and white.

        Raises:
            BundleError: The bundle must not be loaded.
            InputError: An option is wrong.
            MissingError: The backend's package or device is missing.
        """
        check_percentiles(percentiles)
        bundle = Bundle.open(path)
        return cls(
            bundle, load_backend(bundle, backend, threads=threads), resize=resize, percentiles=percentiles
        )

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
    def resizes(self) -> bool:
        """Whether frames of another size are resized."""
        return self._resize

    @property
    def grid(self) -> tuple[int, int]:
        """(gh, gw) of prompt maps."""
        return self.bundle.contract.grid

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
    ) -> Frame | DeviceArray: ...

    def __call__(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
    ) -> Frame | DeviceArray:
        """Fuse two frames, or two batches of frames.

        Args:
            x: The first source, [H, W, C] or [B, H, W, C].
            y: The second source, like x.
            scale: Alpha of Eq. 8.
            shift: Beta of Eq. 8.

        Returns:
            uint8 [H, W, 3] or [B, H, W, 3]; a `DeviceArray` if x or y is in device memory.

        Raises:
            InputError: A source or prompt has a wrong shape, type or value.
        """
        return self._fuse(x, y, scale, shift)[0]

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
    ) -> tuple[Frame | DeviceArray, NDArray[np.float32] | DeviceArray]: ...

    def with_prompt(
        self,
        x: AnyImage,
        y: AnyImage,
        *,
        scale: PromptLike | None = None,
        shift: PromptLike | None = None,
    ) -> tuple[Frame | DeviceArray, NDArray[np.float32] | DeviceArray]:
        """Fuse like a call, and also return the prompts of the K TC-MoAs after Eq. 8.

        Returns:
            The fused frame, and float32 [K, 2, gh, gw] ([B, K, 2, gh, gw] for a batch): prompt_x and prompt_y.

        Raises:
            InputError: As for a call, or the bundle was exported without the prompt output.
        """
        if not self.bundle.contract.with_prompt:
            raise InputError(
                "has no prompt output",
                subject=self.bundle.path,
                remedy="Export the bundle again with {with_prompt}",
                settings={"with_prompt": True},
            )
        fused, prompt = self._fuse(x, y, scale, shift)
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
        """
        share = mask_share(mask, "mask", self.size, self.grid, self.bundle.map_token).astype(np.float64)
        return (outside + (inside - outside) * share).astype(np.float32)

    def aligned(self, frame: Frame, name: SourceName) -> Frame:
        """Warp a frame [H, W, C] of source `name` by the bundle's alignment; the size of the frame is kept.

        Use it to show or compare a source beside the result. Returns `frame` itself if its source is not aligned.
        """
        warp = self._warps.get(name)
        if warp is None:
            return frame
        at_size = frame if frame.shape[:2] == self.size else resize_frame(frame, self.size)
        return _resize_back(warp(at_size), frame.shape)

    def _fuse(
        self, x: AnyImage, y: AnyImage, scale: PromptLike | None, shift: PromptLike | None
    ) -> tuple[Frame | DeviceArray, NDArray[np.float32] | DeviceArray | None]:
        if isinstance(self.backend, DeviceBackend) and (is_on_gpu(x) or is_on_gpu(y)):
            if self._warps:
                raise InputError(
                    "aligns its sources, which needs frames in host memory",
                    subject=self.bundle.path,
                    remedy="Copy the frames to the host, or align them on the GPU and fuse with a bundle "
                    "without alignment",
                )
            return self._fuse_on_device(self.backend, x, y, scale, shift)
        return self._fuse_on_host(x, y, scale, shift)

    def _fuse_on_host(
        self, x: AnyImage, y: AnyImage, scale: PromptLike | None, shift: PromptLike | None
    ) -> tuple[Frame, NDArray[np.float32]]:
        frames_x, is_single = _as_batch(x, X)
        frames_y, is_single_y = _as_batch(y, Y)
        if len(frames_x) != len(frames_y) or is_single != is_single_y:
            raise InputError(
                f"x has shape {_shape_of(x)} and y {_shape_of(y)}; expected the same number of frames"
            )
        count, size = len(frames_x), self.bundle.contract.batch
        scales, shifts = self._prompts(scale, shift, count)
        ready_x = [self._prepare(f, X, self.bundle.contract.x_channels) for f in frames_x]
        ready_y = [self._prepare(f, Y, self.bundle.contract.y_channels) for f in frames_y]
        fused: list[Frame] = []
        prompts: list[NDArray[np.float32]] = []
        for start in range(0, count, size):
            # The last batch is padded with copies of the last frame, whose results are dropped.
            rows = [min(start + i, count - 1) for i in range(size)]
            result = self.backend.infer(
                {
                    X: np.stack([ready_x[r] for r in rows]),
                    Y: np.stack([ready_y[r] for r in rows]),
                    PROMPT_SCALE: np.ascontiguousarray(scales[rows]),
                    PROMPT_SHIFT: np.ascontiguousarray(shifts[rows]),
                }
            )
            kept = min(size, count - start)
            fused.extend(result[FUSED][:kept])
            if PROMPT in result:
                prompts.extend(result[PROMPT][:kept])
        restored = [_resize_back(f, np.shape(s)) for f, s in zip(fused, frames_x, strict=True)]
        prompt = np.stack(prompts) if prompts else np.empty((count, 0, 2, *self.grid), np.float32)
        if is_single:
            return restored[0], prompt[0]
        return np.stack(restored), prompt

    def _fuse_on_device(
        self,
        backend: DeviceBackend,
        x: AnyImage,
        y: AnyImage,
        scale: PromptLike | None,
        shift: PromptLike | None,
    ) -> tuple[DeviceArray, DeviceArray | None]:
        """Fuse arrays in device memory; they are not converted, resized or padded."""
        axes_x, axes_y = num_axes(x, X), num_axes(y, Y)
        if axes_x != axes_y:
            raise InputError(f"x has {axes_x} axes and y {axes_y}; expected the same number of frames")
        is_single = axes_x == 3
        scales, shifts = self._prompts(scale, shift, self.bundle.contract.batch)
        result = backend.infer_device(
            {
                X: x if is_on_gpu(x) or not is_single else host_array(x, X)[None],
                Y: y if is_on_gpu(y) or not is_single else host_array(y, Y)[None],
                PROMPT_SCALE: scales,
                PROMPT_SHIFT: shifts,
            }
        )
        fused, prompt = result[FUSED], result.get(PROMPT)
        if is_single:
            return fused.without_batch_axis(), None if prompt is None else prompt.without_batch_axis()
        return fused, prompt

    def _prompts(
        self, scale: PromptLike | None, shift: PromptLike | None, count: int
    ) -> tuple[PromptMap, PromptMap]:
        """Return alpha and beta as maps [count, gh, gw]."""
        default_scale, default_shift = self.bundle.default_prompt
        return (
            prompt_map(default_scale if scale is None else scale, PROMPT_SCALE, count, self.grid),
            prompt_map(default_shift if shift is None else shift, PROMPT_SHIFT, count, self.grid),
        )

    def _prepare(self, image: Any, name: str, channels: int) -> Frame:
        """Convert, resize and align one source."""
        order = self.bundle.channel_order
        frame = to_frame(image, name, channels, order=order, percentiles=self._percentiles)
        if frame.shape[:2] != self.size:
            if not self._resize:
                raise self._wrong_size(frame, name)
            frame = resize_frame(frame, self.size)
        warp = self._warps.get(name)
        return frame if warp is None else warp(frame)

    def _wrong_size(self, frame: Frame, name: str) -> InputError:
        arrived = format_size(frame.shape)
        return InputError(
            f"{arrived}; expected {format_size(self.size)}, the size of this bundle",
            subject=name,
            remedy=f"Resize frames with {{resize}}, or export a bundle for {arrived}",
            settings={"resize": True},
        )


def _resize_back(fused: Frame, shape: tuple[int, ...]) -> Frame:
    """Resize a result [h, w, 3] to the size of a source of `shape` [H, W, ...]."""
    return fused if fused.shape[:2] == shape[:2] else resize_frame(fused, (shape[0], shape[1]))


def _shape_of(image: object) -> list[int]:
    return list(np.asarray(image).shape)


def _as_batch(image: AnyImage, name: str) -> tuple[Sequence[Any], bool]:
    """Return a list of frames, and whether a single one was given."""
    array = as_array(image, name)
    if array.ndim != 4:
        return [image], True
    if not len(array):
        raise InputError(
            f"shape {list(array.shape)}, which holds no frame; expected one or more", subject=name
        )
    return list(array), False
