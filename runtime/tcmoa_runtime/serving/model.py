"""A bundle that is served: its description, and fusing of tensors and of image files with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.image_header import ImageFormat
from tcmoa_runtime.images import decode_image, encode_image, in_order
from tcmoa_runtime.request_images import FUSED_FILES, MAX_FRAMES, check_extent, decode_frames, frame_size
from tcmoa_runtime.request_prompts import expand_numbers
from tcmoa_runtime.serving.protocol import MODEL_VERSION, InferRequest, RequestedOutput
from tcmoa_runtime.serving.tensors import Tensor
from tcmoa_runtime.typing import Frame, JsonObject, JsonValue, PromptLike

PLATFORM: Final = "tcmoa"

_PROMPTS: Final = (PROMPT_SCALE, PROMPT_SHIFT)
_INPUTS: Final = (X, Y, *_PROMPTS)


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Limits of what a request makes the service decode and fuse.

    Attributes:
        max_pixels: Pixels of all images of a source of one request, before anything is decoded.
    """

    max_pixels: int


class Model:
    """A fuser under the name that requests give.

    Safe to use from several threads.
    """

    def __init__(
        self,
        name: str,
        fuser: Fuser,
        limits: ImageLimits,
        *,
        prompt: Prompt | None = None,
        on_fused: Callable[[str, int, float], None],
    ) -> None:
        """Serve a fuser.

        Args:
            name: Name in URLs.
            fuser: The fuser; the caller closes it.
            limits: Limits of one request.
            prompt: Prompt of requests that give none; the bundle's default if None.
            on_fused: Called with the name, the number of pairs and the seconds after each run of the fuser.

        Raises:
            NoPromptError: There is a prompt for a network that has none.
        """
        self.name, self.fuser = name, fuser
        self._limits, self._on_fused = limits, on_fused
        self._prompt = prompt or Prompt(None, None)
        self._prompt.check_for(fuser.bundle)

    def describe(self) -> JsonObject:
        """Return the metadata of the protocol. An axis of -1 may have any length."""
        contract = self.fuser.bundle.contract
        size = [contract.height, contract.width] if self.fuser.fit == "exact" else [-1, -1]
        grid = [-1, -1] if size[0] == -1 else list(contract.grid)
        inputs = [
            _describe_tensor(X, "UINT8", [*size, contract.x_channels]),
            _describe_tensor(Y, "UINT8", [*size, contract.y_channels]),
        ]
        if self.fuser.bundle.has_prompt:
            inputs += [_describe_tensor(name, "FP32", grid) for name in _PROMPTS]
        outputs = [_describe_tensor(FUSED, "UINT8", [*size, 3])]
        outputs += [_describe_tensor(name, "BYTES", [1]) for name in FUSED_FILES]
        if contract.with_prompt:
            outputs.append(_describe_tensor(PROMPT, "FP32", [contract.prompts, 2, *grid]))
        return {
            "name": self.name,
            "versions": [MODEL_VERSION],
            "platform": f"{PLATFORM}_{self.fuser.backend.name.partition(' ')[0]}",
            "inputs": inputs,
            "outputs": outputs,
        }

    def infer(self, request: InferRequest) -> list[tuple[Tensor, bool]]:
        """Fuse the tensors of a request.

        Returns:
            The requested tensors in their order, and whether each is to be binary data.

        Raises:
            InputError: A tensor or a parameter is unknown, missing, or has a wrong type, shape or value.
        """
        for name in request.inputs:
            if name not in _INPUTS:
                raise InputError(f"no such input; expected {', '.join(_INPUTS)}", subject=name)
        wanted = request.outputs or (RequestedOutput(FUSED, request.is_binary),)
        known = (FUSED, *FUSED_FILES, PROMPT)
        for output in wanted:
            if output.name not in known:
                raise InputError(f"no such output; expected {', '.join(known)}", subject=output.name)
        given = {name: self._prompt_of(request, name) for name in _PROMPTS}
        unknown = next((name for name in request.parameters if name not in (*_PROMPTS, "timeout")), None)
        if unknown is not None:
            expected = ", ".join((*_PROMPTS, "timeout", "binary_data_output"))
            raise InputError(f"no such parameter; expected {expected}", subject=unknown)
        x, y = (self._images_of(request.inputs.get(name), name) for name in (X, Y))
        with_prompt = any(output.name == PROMPT for output in wanted)
        fused, prompt = self._fuse(x, y, given[PROMPT_SCALE], given[PROMPT_SHIFT], with_prompt=with_prompt)
        return [(self._output(output.name, fused, prompt), output.is_binary) for output in wanted]

    def fuse_files(
        self,
        x: bytes,
        y: bytes,
        image_format: ImageFormat,
        *,
        scale: float | None = None,
        shift: float | None = None,
    ) -> bytes:
        """Fuse two image files into one.

        Raises:
            InputError: A file is no image or too large, or the two cannot be fused.
        """
        first = self._decode(x, X, self._limits.max_pixels)
        second = self._decode(y, Y, self._limits.max_pixels)
        fused, _ = self._fuse(first, second, scale, shift, with_prompt=False)
        return self._encode(fused, image_format)

    def _fuse(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        scale: PromptLike | None,
        shift: PromptLike | None,
        *,
        with_prompt: bool,
    ) -> tuple[Frame, NDArray[np.float32] | None]:
        """Fuse frames in the bundle's channel order."""
        for name, image in ((X, x), (Y, y)):
            check_extent(image, name, self._limits.max_pixels)
        size = frame_size(x)  # the fuser refuses what has none
        if scale is None:
            scale = self._prompt.scale
        if shift is None and size is not None:
            shift = self._prompt.shift_for(self.fuser, size)
        scale, shift = (expand_numbers(value, self.fuser, x) for value in (scale, shift))
        start = time.perf_counter()
        if with_prompt:
            fused, prompt = self.fuser.with_prompt(x, y, scale=scale, shift=shift)
        else:
            fused, prompt = self.fuser(x, y, scale=scale, shift=shift), None
        self._on_fused(self.name, len(x) if x.ndim == 4 else 1, time.perf_counter() - start)
        return fused, prompt

    def _output(self, name: str, fused: Frame, prompt: NDArray[np.float32] | None) -> Tensor:
        if name == FUSED:
            return Tensor.of_array(name, fused)
        if name in FUSED_FILES:
            frames = fused if fused.ndim == 4 else fused[None]
            return Tensor.of_items(name, [self._encode(frame, FUSED_FILES[name]) for frame in frames])
        if prompt is None:
            raise TypeError("the prompt was requested, but the fuser returned none")
        return Tensor.of_array(name, prompt)

    def _encode(self, fused: Frame, image_format: ImageFormat) -> bytes:
        return encode_image(in_order(fused, self.fuser.bundle.channel_order), image_format, FUSED)

    def _decode(self, data: bytes | memoryview, name: str, max_pixels: int) -> NDArray[Any]:
        """Decode an image file into the bundle's channel order."""
        return in_order(decode_image(data, name, max_pixels=max_pixels), self.fuser.bundle.channel_order)

    def _images_of(self, tensor: Tensor | None, name: str) -> NDArray[Any]:
        """Return the frame [H, W], [H, W, C] or the frames [B, H, W, C] of a source."""
        if tensor is None:
            raise InputError("missing; expected both x and y among the inputs", subject=name)
        if tensor.array is not None:
            if tensor.datatype not in ("UINT8", "UINT16"):
                raise InputError(
                    f"datatype {tensor.datatype}; expected UINT8, UINT16 or BYTES (image files)", subject=name
                )
            return tensor.array
        if len(tensor.shape) > 1 or not tensor.items or len(tensor.items) > MAX_FRAMES:
            raise InputError(
                f"BYTES {list(tensor.shape)}; expected [1], or [B] for at most {MAX_FRAMES} image files",
                subject=name,
            )
        frames = decode_frames(
            tensor.items, name, self.fuser.bundle.channel_order, max_pixels=self._limits.max_pixels
        )
        return frames if len(frames) > 1 else frames[0]

    def _prompt_of(self, request: InferRequest, name: str) -> PromptLike | None:
        """Return alpha or beta of a request, from a tensor or a parameter; None if it has none."""
        tensor, value = request.inputs.get(name), request.parameters.get(name)
        if tensor is None:
            return _as_number(value, name)
        if value is not None:
            raise InputError("given as a tensor and as a parameter; expected one of the two", subject=name)
        if tensor.array is None:
            raise InputError(f"datatype {tensor.datatype}; expected numbers, e.g. FP32", subject=name)
        return tensor.array.reshape(()) if tensor.shape == (1,) else tensor.array


def _as_number(value: JsonValue, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r}; expected a number", subject=name)
    return float(value)


def _describe_tensor(name: str, datatype: str, shape: list[int]) -> JsonObject:
    return {"name": name, "datatype": datatype, "shape": shape}
