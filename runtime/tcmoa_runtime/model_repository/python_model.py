"""What a model of Triton's python backend does: it fuses the frames of each request with a bundle.

`model.py` of a repository calls this module in the process that Triton starts for each instance of a model.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import FUSED, PROMPT, PROMPT_SCALE, PROMPT_SHIFT, X, Y
from tcmoa_runtime.errors import InputError, NoPromptError, TcmoaError, first_line
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import DEFAULT_PERCENTILES, encode_image, in_order
from tcmoa_runtime.log_output import LogSettings, shown_log
from tcmoa_runtime.model_repository.tensors import ENCODED, SOURCE_FORMS, python_outputs
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.option import check_minimum
from tcmoa_runtime.request_images import DEFAULT_MAX_PIXELS, FUSED_FILES, check_extent, decode_frames
from tcmoa_runtime.request_prompts import expand_numbers
from tcmoa_runtime.typing import BackendChoice, FitMode, Frame, Percentiles, PromptLike

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Tensors of a request or response by name."""

CONFIG: Final = "config.pbtxt"
_BOOLEANS: Final = {"true": True, "false": False}


class TritonModule(Protocol):
    """What is used of `triton_python_backend_utils`, which exists in Triton only."""

    Tensor: Any
    InferenceResponse: Any
    TritonError: Any
    TritonModelException: Any
    Logger: Any


@dataclass(frozen=True, kw_only=True)
class PythonSettings:
    """Settings of a model, the parameters of its config.pbtxt.

    Attributes:
        fuser_backend: Backend of the fuser.
        fit: How frames of another size are fused.
        stretch: Percentiles of frames with 16 bits that become black and white.
        threads: CPU threads; None: all cores.
        max_pixels: Most pixels of all images of a source of one request.
        trust_engines: Whether engines of the bundle are loaded.
    """

    fuser_backend: BackendChoice = "auto"
    fit: FitMode = "auto"
    stretch: Percentiles = DEFAULT_PERCENTILES
    threads: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    trust_engines: bool = False

    def to_parameters(self) -> dict[str, str]:
        """Return the parameters of config.pbtxt, which are texts."""
        values: dict[str, str] = {
            "fuser_backend": self.fuser_backend,
            "fit": self.fit,
            "stretch": ",".join(f"{value:g}" for value in self.stretch),
            "max_pixels": str(self.max_pixels),
            "trust_engines": str(self.trust_engines).lower(),
        }
        return values if self.threads is None else {**values, "threads": str(self.threads)}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> PythonSettings:
        """Read parameters; labels (`tcmoa.task`) and Triton's own (`EXECUTION_ENV_PATH`) are no settings.

        Raises:
            InputError: A parameter is unknown or has a wrong value; the subject names it.
        """
        try:
            return cls._read(parameters)
        except InputError as error:
            name = "fuser_backend" if error.subject == "backend" else error.subject
            raise error.with_subject(f"parameter {name} of {CONFIG}") from error

    @classmethod
    def _read(cls, parameters: Mapping[str, str]) -> PythonSettings:
        """Read parameters; raises InputError whose subject is the parameter, or the field of `FuserOptions`."""
        names = sorted(field.name for field in fields(cls))
        for name in parameters:
            if name not in names and "." not in name and name.islower():
                raise InputError(f"no such setting; expected {', '.join(names)}", subject=name)
        settings = cls(**{name: _parse(name, text) for name, text in parameters.items() if name in names})
        check_minimum("max_pixels", settings.max_pixels, 1)
        FuserOptions(
            backend=settings.fuser_backend,
            fit=settings.fit,
            stretch=settings.stretch,
            threads=settings.threads,
        )
        return settings


def _parse(name: str, text: str) -> Any:
    """Parse the text of a setting; raises InputError whose subject is its name."""
    try:
        if name in ("threads", "max_pixels"):
            return int(text)
        if name == "stretch":
            low, high = text.split(",")
            return float(low), float(high)
        if name == "trust_engines":
            return _BOOLEANS[text]
    except (ValueError, KeyError):
        expected = {"stretch": "two percentiles, e.g. 1,99", "trust_engines": "true or false"}
        raise InputError(f"{text!r}; expected {expected.get(name, 'a whole number')}", subject=name) from None
    return text


class PythonModel:
    """A loaded bundle that answers requests of Triton."""

    def __init__(self, bundle: Path, args: Mapping[str, str], triton: TritonModule) -> None:
        """Check and load the bundle.

        Args:
            bundle: Its folder.
            args: What Triton passes to `initialize`.
            triton: The module `triton_python_backend_utils`.

        Raises:
            TritonModelException: The bundle must not be loaded, or a setting is wrong; the message is one line.
        """
        self._triton = triton
        with ExitStack() as stack:
            try:
                stack.enter_context(shown_log(_TritonLog(triton), LogSettings.from_environment()))
                config = json.loads(args["model_config"])
                parameters = {
                    key: entry["string_value"] for key, entry in config.get("parameters", {}).items()
                }
                self._frames = RequestFuser.load(
                    bundle, PythonSettings.from_parameters(parameters), num_instances(config)
                )
            except TcmoaError as error:
                raise triton.TritonModelException(one_line(error)) from error
            stack.callback(self._frames.close)
            self._resources = stack.pop_all()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request with its fused frames, or with one line that says what is wrong with it."""
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        """Free the bundle."""
        self._resources.close()

    def _answer(self, request: Any) -> Any:
        triton = self._triton
        try:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            outputs = self._frames.fuse(inputs, request.requested_output_names())
        except InputError as error:
            failure = triton.TritonError(one_line(error), triton.TritonError.INVALID_ARG)
            return triton.InferenceResponse(error=failure)
        except Exception as error:  # also an internal error, which must not end other requests
            text = (
                one_line(error) if isinstance(error, TcmoaError) else f"internal error: {first_line(error)}"
            )
            triton.Logger.log_error(text)
            return triton.InferenceResponse(error=triton.TritonError(text, triton.TritonError.INTERNAL))
        return triton.InferenceResponse(
            output_tensors=[triton.Tensor(name, value) for name, value in outputs.items()]
        )


class RequestFuser:
    """Fuses the tensors of a request."""

    def __init__(self, fuser: Fuser, max_pixels: int) -> None:
        """Combine a loaded fuser with the limit of a request."""
        self._fuser, self._max_pixels = fuser, max_pixels
        self._outputs = {tensor.name for tensor in python_outputs(fuser.bundle)}
        self._default_outputs = sorted(self._outputs - FUSED_FILES.keys())

    @classmethod
    def load(cls, bundle: Path, settings: PythonSettings, instances: int = 1) -> RequestFuser:
        """Load a bundle; instances of a model share the cores if no number of threads is set.

        Raises:
            TcmoaError: As `Fuser.load`.
        """
        threads = settings.threads
        if threads is None and instances > 1:
            threads = max(1, len(os.sched_getaffinity(0)) // instances)
        fuser = Fuser.load(
            bundle,
            settings.fuser_backend,
            threads=threads,
            fit=settings.fit,
            percentiles=settings.stretch,
            trust_engines=settings.trust_engines,
        )
        return cls(fuser, settings.max_pixels)

    def close(self) -> None:
        """Free the bundle."""
        self._fuser.close()

    def fuse(self, inputs: Tensors, requested: Collection[str]) -> dict[str, NDArray[Any]]:
        """Fuse the frames of a request.

        Args:
            inputs: Tensors of `python_inputs` by name.
            requested: Names of the outputs that the request asks for. Triton asks for all outputs where a request names
                none; then no frame is encoded, as few would read it.

        Returns:
            The outputs by name.

        Raises:
            InputError: An input is missing, or has a wrong shape, size, type or value.
        """
        x, y = self._source(inputs, X), self._source(inputs, Y)
        if len(x) != len(y):
            raise InputError(f"x has {len(x)} frames and y {len(y)}; expected the same number of frames")
        scale, shift = self._prompts(inputs, x)
        sources = (x[0], y[0]) if len(x) == 1 else (x, y)  # a single frame is not copied into a batch
        prompt: NDArray[np.float32] | None = None
        if PROMPT in requested:
            fused, prompt = self._fuser.with_prompt(*sources, scale=scale, shift=shift)
        else:
            fused = self._fuser(*sources, scale=scale, shift=shift)
        if len(x) == 1:
            fused = fused[None]
            prompt = None if prompt is None else prompt[None]
        names = self._default_outputs if set(requested) == self._outputs else requested
        return {name: self._output(name, fused, prompt) for name in names}

    def _output(self, name: str, fused: Frame, prompt: NDArray[np.float32] | None) -> NDArray[Any]:
        if name in FUSED_FILES:
            order = self._fuser.bundle.channel_order
            files = [encode_image(in_order(frame, order), FUSED_FILES[name], name) for frame in fused]
            return np.array(files, np.object_)
        if name == FUSED:
            return fused
        if prompt is None:
            raise TypeError(f"no output {name!r} was computed")
        return prompt

    def _source(self, inputs: Tensors, source: str) -> NDArray[Any]:
        """Return the frames of a source, [B, H, W, C] in the bundle's channel order."""
        names = [f"{source}{form}" for form in SOURCE_FORMS]
        given = [name for name in names if name in inputs]
        if len(given) != 1:
            arrived = "given as " + " and ".join(given) if given else "not given"
            raise InputError(f"{arrived}; expected one of the inputs {', '.join(names)}", subject=source)
        (name,) = given
        value = inputs[name]
        if name.endswith(ENCODED):
            return decode_frames(
                list(value), name, self._fuser.bundle.channel_order, max_pixels=self._max_pixels
            )
        check_extent(value, name, self._max_pixels)
        return value

    def _prompts(self, inputs: Tensors, x: NDArray[Any]) -> tuple[PromptLike | None, PromptLike | None]:
        """Return alpha and beta of a request; None for the bundle's default."""
        values = []
        for name in (PROMPT_SCALE, PROMPT_SHIFT):
            value = inputs.get(name)
            if value is not None and not self._fuser.bundle.has_prompt:
                raise NoPromptError(name)
            values.append(expand_numbers(value, self._fuser, x))
        return values[0], values[1]


class _TritonLog(logging.Handler):
    """Sends what the library logs to Triton's log."""

    def __init__(self, triton: TritonModule) -> None:
        super().__init__()
        logger = triton.Logger
        self._functions = {logging.ERROR: logger.log_error, logging.WARNING: logger.log_warn}
        self._functions |= {logging.INFO: logger.log_info, logging.DEBUG: logger.log_verbose}

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record at its level, as one line."""
        level = max((level for level in self._functions if level <= record.levelno), default=logging.DEBUG)
        self._functions[level](" ".join(record.getMessage().split()))


def one_line(error: TcmoaError) -> str:
    """Return an error as one line."""
    return " ".join(str(error).split())


def num_instances(config: Mapping[str, Any]) -> int:
    """Return the number of instances that run at the same time, from Triton's model configuration."""
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", ())) or 1
