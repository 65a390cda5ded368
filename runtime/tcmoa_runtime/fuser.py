"""Fusing frames: any sensible arrays in, fused uint8 frames out."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.alignment import Warp
from tcmoa_runtime.backends.base import Backend, DeviceBackend
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.gpu.device_arrays import DeviceArray, dimensions, host_array, is_on_gpu
from tcmoa_runtime.images import (
    STRETCH,
    ChannelOrder,
    Frame,
    as_array,
    check_percentiles,
    resize_frame,
    to_frame,
)
from tcmoa_runtime.prompts import Map, mask_share, prompt_map


class Fuser:
    """A loaded bundle: `fused = fuser(x, y, scale=1.0, shift=0.0)`.

    Frames are [H, W, 3] in the bundle's channel order, or what `tcmoa_runtime.images` turns into that (grey,
    alpha, uint16); [B, H, W, C] fuses B frames one after the other, in the bundle's own batches. `scale` and
    `shift` are alpha and beta of Eq. 8, the bundle's default when None; numbers, or maps [gh, gw]
    (`fuser.grid`), or a map for each frame [B, gh, gw]. Safe to use from several threads.

    With a backend on the GPU, frames may lie there, too (`__dlpack__` or `__cuda_array_interface__`): exactly as
    the graph takes them, uint8 [H, W, C] or the bundle's own batch [B, H, W, C]. The result stays there then, as
    a `DeviceArray`, which says how long it is valid.

    A bundle with an alignment moves x or y first (`tcmoa calibrate align`): frames of the host only.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        resize: bool = False,
        percentiles: tuple[float, float] = STRETCH,
    ) -> None:
        self.bundle, self.backend = bundle, backend
        self._resize, self._percentiles = resize, check_percentiles(percentiles)
        alignment = bundle.alignment
        self._warps: dict[str, Warp] = (
            {} if alignment is None else {alignment.source: Warp.of(alignment, self.size)}
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: str = "auto",
        *,
        threads: int | None = None,
        resize: bool = False,
        percentiles: tuple[float, float] = STRETCH,
    ) -> Self:
        """Check the bundle at `path` and load it.

        `resize`: frames of another size are resized to the bundle's, and the result back to the size of x;
        otherwise they are refused. `percentiles`: what becomes black and white of 16-bit frames. Raises
        BundleError on a bundle that must not be loaded, InputError on wrong options, MissingError when the
        backend's package is not installed.
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
        """Free the backend; fusing afterwards raises TcmoaError."""
        self.backend.close()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the bundle's frames."""
        return self.bundle.contract.height, self.bundle.contract.width

    @property
    def resizes(self) -> bool:
        """Whether frames of another size are adapted, and results go back to the size of x."""
        return self._resize

    @property
    def grid(self) -> tuple[int, int]:
        """(gh, gw) of prompt maps."""
        return self.bundle.contract.grid

    def __call__(self, x: Any, y: Any, *, scale: Any = None, shift: Any = None) -> Any:
        """Fuse two frames [H, W, C] to uint8 [H, W, 3], or batches of them; raises InputError on wrong ones.

        The result is a numpy array, or a `DeviceArray` where x or y lies on the GPU.
        """
        return self._fuse(x, y, scale, shift)[0]

    def with_prompt(self, x: Any, y: Any, *, scale: Any = None, shift: Any = None) -> tuple[Any, Any]:
        """As calling, with the prompts float32 [K, 2, gh, gw] of the K TC-MoAs, after Eq. 8.

        Raises InputError when the bundle was exported without them.
        """
        if not self.bundle.contract.with_prompt:
            raise InputError(f"{self.bundle.path}: has no prompt output; export it with --with-prompt")
        return self._fuse(x, y, scale, shift)

    def region(self, mask: Any, inside: float, outside: float) -> Map:
        """A prompt map [gh, gw] from a mask [H, W] (bool, or 0..1): `inside` where it is 1, `outside` where 0.

        Tokens that the mask covers in part get the mean. Raises InputError when the mask has another size or
        holds something else.
        """
        token = None if self.bundle.fit == "resize" else self.bundle.token_pixels
        share = mask_share(mask, "mask", self.size, self.grid, token).astype(np.float64)
        return (outside + (inside - outside) * share).astype(np.float32)

    def aligned(self, frame: Frame, name: str) -> Frame:
        """A frame [H, W, C] of source `name` (`x` or `y`) where the bundle's alignment moves it to, at its own size.

        For whoever shows or compares a source beside the result; `frame` itself where nothing moves it.
        """
        warp = self._warps.get(name)
        if warp is None:
            return frame
        at_size = frame if frame.shape[:2] == self.size else resize_frame(frame, self.size)
        return self._restore(warp(at_size), frame.shape)

    def _fuse(self, x: Any, y: Any, scale: Any, shift: Any) -> tuple[Any, Any]:
        if isinstance(self.backend, DeviceBackend) and (is_on_gpu(x) or is_on_gpu(y)):
            if self._warps:
                raise InputError(
                    f"{self.bundle.path}: aligns its sources, which is done on the host only: give frames in host "
                    f"memory, or align them on the GPU and fuse with the bundle from before `tcmoa calibrate align`"
                )
            return self._fuse_device(self.backend, x, y, scale, shift)
        frames_x, single = _as_batch(x, X)
        frames_y, single_y = _as_batch(y, Y)
        if len(frames_x) != len(frames_y) or single != single_y:
            raise InputError(
                f"x has shape {list(np.shape(x))} and y {list(np.shape(y))}: expected as many frames in both"
            )
        count, size = len(frames_x), self.bundle.contract.batch
        scales, shifts = self._prompts(scale, shift, count)
        ready_x = [self._prepare(f, X, self.bundle.contract.x_channels) for f in frames_x]
        ready_y = [self._prepare(f, Y, self.bundle.contract.y_channels) for f in frames_y]
        fused: list[Frame] = []
        prompts: list[NDArray[np.float32]] = []
        for start in range(0, count, size):
            # The last batch is filled up with its last frame, whose copies are thrown away.
            rows = [min(start + i, count - 1) for i in range(size)]
            result = self.backend.infer(
                {
                    X: np.stack([ready_x[r] for r in rows]),
                    Y: np.stack([ready_y[r] for r in rows]),
                    PROMPT_SCALE: np.ascontiguousarray(scales[rows]),
                    PROMPT_SHIFT: np.ascontiguousarray(shifts[rows]),
                }
            )
            wanted = min(size, count - start)
            fused.extend(result[FUSED][:wanted])
            if PROMPT in result:
                prompts.extend(result[PROMPT][:wanted])
        restored = [self._restore(f, np.shape(s)) for f, s in zip(fused, frames_x, strict=True)]
        prompt = np.stack(prompts) if prompts else np.empty((count, 0, 2, *self.grid), np.float32)
        if single:
            return restored[0], prompt[0]
        return np.stack(restored), prompt

    def _fuse_device(
        self, backend: DeviceBackend, x: Any, y: Any, scale: Any, shift: Any
    ) -> tuple[DeviceArray, DeviceArray | None]:
        """The same without leaving the GPU: nothing is converted, resized or filled up there."""
        axes_x, axes_y = dimensions(x, X), dimensions(y, Y)
        if axes_x != axes_y:
            raise InputError(f"x has {axes_x} axes and y {axes_y}: expected as many frames in both")
        single = axes_x == 3
        scales, shifts = self._prompts(scale, shift, self.bundle.contract.batch)
        result = backend.infer_device(
            {
                X: x if is_on_gpu(x) or not single else host_array(x, X)[None],
                Y: y if is_on_gpu(y) or not single else host_array(y, Y)[None],
                PROMPT_SCALE: scales,
                PROMPT_SHIFT: shifts,
            }
        )
        fused, prompt = result[FUSED], result.get(PROMPT)
        if single:
            return fused.frame(), None if prompt is None else prompt.frame()
        return fused, prompt

    def _prompts(self, scale: Any, shift: Any, count: int) -> tuple[Map, Map]:
        """alpha and beta as maps [count, gh, gw], the bundle's default where None."""
        default_scale, default_shift = self.bundle.default_prompt
        return (
            prompt_map(default_scale if scale is None else scale, PROMPT_SCALE, count, self.grid),
            prompt_map(default_shift if shift is None else shift, PROMPT_SHIFT, count, self.grid),
        )

    def _prepare(self, image: Any, name: str, channels: int) -> Frame:
        order: ChannelOrder = "bgr" if self.bundle.channel_order == "bgr" else "rgb"
        frame = to_frame(image, name, channels, order=order, percentiles=self._percentiles)
        if frame.shape[:2] != self.size:
            frame = self._resized(frame, name)
        warp = self._warps.get(name)
        return frame if warp is None else warp(frame)

    def _resized(self, frame: Frame, name: str) -> Frame:
        height, width = self.size
        arrived = frame.shape[:2]
        if not self._resize:
            raise InputError(
                f"{name} is {arrived[1]}x{arrived[0]}, this bundle fuses {width}x{height}: resize it (--resize, "
                f"or Fuser.load(..., resize=True)), or export a bundle for {arrived[1]}x{arrived[0]}"
            )
        return resize_frame(frame, (height, width))

    def _restore(self, fused: Frame, shape: tuple[int, ...]) -> Frame:
        """Back to the size of x."""
        return fused if fused.shape[:2] == shape[:2] else resize_frame(fused, (shape[0], shape[1]))


def _as_batch(image: Any, name: str) -> tuple[list[Any], bool]:
    """A list of frames, and whether a single one was given."""
    if as_array(image, name).ndim == 4:
        if not len(image):
            raise InputError(f"{name} has shape {list(np.shape(image))}: it holds no frame")
        return list(image), False
    return [image], True
