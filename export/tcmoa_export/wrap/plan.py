"""Conventions that are complete: what was given, and what the network itself says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tcmoa_export.wrap.network import Arrays, TensorInfo
from tcmoa_runtime.contract import Contract, Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.options.wrap import Conventions, Join, SourceOrder, TensorLayout
from tcmoa_runtime.typing import ChannelOrder, FrameSize, SourceName

Channels = Literal[1, 3]

SOURCES: Final[tuple[SourceName, SourceName]] = ("x", "y")

SOURCE_WORDS: Final[Mapping[Task, tuple[frozenset[str], frozenset[str]]]] = {
    "vif": (
        frozenset({"vi", "vis", "visible", "visual", "rgb", "color"}),
        frozenset({"ir", "inf", "infrared", "thermal", "tir", "lwir", "nir"}),
    ),
    "mef": (
        frozenset({"over", "oe", "overexposed", "bright", "high"}),
        frozenset({"under", "ue", "underexposed", "dark", "low"}),
    ),
    "mff": (frozenset({"far", "background"}), frozenset({"near", "foreground"})),
}
"""Words in the names of inputs that say which source they take: x, then y."""

_CHOICES: Final[Mapping[str, str]] = {
    "join": "channels|batch|depth",
    "order": "xy|yx",
    "layout": "nchw|nhwc",
    "x_content": "rgb|bgr|luma|gray",
    "y_content": "rgb|bgr|luma|gray",
    "range_in": "0..1|0..255|-1..1|mean-std",
    "range_out": "0..1|0..255|-1..1|mean-std",
    "color_out": "gray|chroma-x|chroma-weighted|chroma-nearest",
    "size": "WIDTHxHEIGHT",
    "padding": "reflect|symmetric|repeat|zero",
}


class QuestionsError(InputError):
    """Conventions that the network does not say and that were not given.

    Args:
        questions: Choices by the name of the convention.
        subject: Name of the network.
    """

    def __init__(self, questions: Mapping[str, str], subject: str) -> None:
        listed = ", ".join(f"{name} ({choices})" for name, choices in questions.items())
        asked = ", ".join("{" + name + "}" for name in questions)
        super().__init__(
            f"the network does not say {listed}; expected one of each",
            subject=subject,
            remedy=f"Set {asked}, or put a TOML file of the same name beside the network",
            settings=dict.fromkeys(questions, ...),
        )
        self.questions = dict(questions)


@dataclass(frozen=True)
class Pads:
    """Pixels added around a picture."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.top or self.left or self.bottom or self.right)


@dataclass(frozen=True, kw_only=True)
class InputPlan:
    """How two frames become the inputs of a network.

    Attributes:
        conventions: The conventions, none of those of inputs left open.
        task: The task.
        size: (H, W) of the frames.
        padded: (H, W) of the network's pictures.
        pads: What is between the two.
        batch: Number of frames.
        channel_order: Order of the channels of the frames.
        channels: Channels in which each source enters the network.
        shapes: Shapes of the network's inputs by name.
        dtypes: Their element types.
        constants: Values of the inputs that take no source.
        small_size: (h, w) of the smaller sources.
        read: What was read off the network, in words.
    """

    conventions: Conventions
    task: Task
    size: FrameSize
    padded: FrameSize
    pads: Pads
    batch: int
    channel_order: ChannelOrder
    channels: Mapping[SourceName, Channels]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[Any]]
    constants: Mapping[str, NDArray[Any]]
    small_size: FrameSize
    read: tuple[str, ...]

    @property
    def sources(self) -> tuple[SourceName, SourceName]:
        """The sources in the order of the network."""
        return ("y", "x") if self.conventions.order == "yx" else ("x", "y")

    def frame_channels(self, source: SourceName) -> Channels:
        """Return the channels of the frames of a source."""
        content = self.conventions.x_content if source == "x" else self.conventions.y_content
        return 1 if content == "gray" else 3

    def content(self, source: SourceName) -> str:
        """Return what of a source goes in."""
        content = self.conventions.x_content if source == "x" else self.conventions.y_content
        assert content is not None
        return content

    def inputs_of(self, names: Sequence[str]) -> Iterator[tuple[str, tuple[SourceName, ...]]]:
        """Yield each of the given inputs and the sources that it takes, in their order."""
        if len(names) == 2:
            yield from zip(names, (("x",), ("y",)), strict=True)
        else:
            yield from ((name, self.sources) for name in names)


@dataclass(frozen=True, kw_only=True)
class Plan(InputPlan):
    """How two frames become the inputs of a network, and its outputs a frame.

    Attributes:
        output_layouts: Axes of each output that is used.
        output_channels: Channels of the picture; of one weight map otherwise.
    """

    output_layouts: Mapping[str, str]
    output_channels: int

    @property
    def stretches(self) -> int:
        """Number of pictures that are stretched by their own extremes."""
        return 2 * self.conventions.stretch_in + (self.conventions.stretch_out != "none")

    @property
    def contract(self) -> Contract:
        """The contract of the graph."""
        return Contract(
            *self.size,
            (0, 0),
            prompts=0,
            batch=self.batch,
            x_channels=self.frame_channels("x"),
            y_channels=self.frame_channels("y"),
            with_control=False,
            stretches=self.stretches,
        )

    @property
    def keeps_own_color(self) -> bool:
        """Whether the three channels of the network's picture are those of the frame."""
        return self.conventions.color_out in ("rgb", "bgr")


class _Questions:
    """Collects what is open, so that one line asks for all of it."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._open: dict[str, str] = {}

    def ask(self, name: str) -> None:
        self._open.setdefault(name, _CHOICES[name])

    def check(self) -> None:
        """Raise QuestionsError when anything is open."""
        if self._open:
            raise QuestionsError(self._open, self._subject)


def plan_inputs(
    inputs: Sequence[TensorInfo],
    conventions: Conventions,
    *,
    task: Task,
    size: FrameSize | None,
    batch: int = 1,
    channel_order: ChannelOrder = "rgb",
    takes: Callable[[Arrays], bool] | None = None,
    subject: str = "the network",
) -> InputPlan:
    """Complete the conventions of the inputs.

    Args:
        inputs: Inputs of the network.
        conventions: What was given.
        task: Task of the bundle.
        size: Size of the frames, if given.
        batch: Number of frames.
        channel_order: Channel order of the frames.
        takes: Whether the network runs with given inputs: where its shapes leave layout or channels open, these are
            tried out.
        subject: Name of the network in messages.

    Raises:
        QuestionsError: Something is neither given nor said by the network.
        InputError: The network and the conventions do not fit each other, or the network cannot be wrapped.
    """
    conventions.check_ranges()
    planner = _InputPlanner(inputs, conventions, task, batch, takes, subject)
    return planner.plan(size, channel_order)


@dataclass(frozen=True)
class _Trial:
    """A way in which a network may take two pictures: channels of each input that takes one or both."""

    join: Join
    layout: TensorLayout
    channels: tuple[int, ...]


_TRIAL_SIZE: Final = (64, 128)
_SMALL_TRIAL_SIZE: Final = (32, 64)

ItemT = TypeVar("ItemT")


def _only(items: Collection[ItemT]) -> ItemT | None:
    """Return the item if there is just one."""
    return next(iter(items)) if len(items) == 1 else None


def _lone_channels(dims: Sequence[int | None]) -> int | None:
    """Return the axis of the channels, 1 or 3, where only that one is fixed; None otherwise."""
    if len(dims) != 4 or dims[2] is not None or (dims[1] is None) == (dims[3] is None):
        return None
    return 1 if dims[3] is None else 3


class _InputPlanner:
    def __init__(
        self,
        inputs: Sequence[TensorInfo],
        conventions: Conventions,
        task: Task,
        batch: int,
        takes: Callable[[Arrays], bool] | None,
        subject: str,
    ) -> None:
        self._infos = {info.name: info for info in inputs}
        self._given, self._task, self._batch = conventions, task, batch
        self._takes, self._subject = takes, subject
        self._trial_results: list[_Trial] | None = None
        self._questions = _Questions(subject)
        self._read: list[str] = []

    def _refuse(self, problem: str, remedy: str | None = None, **settings: object) -> InputError:
        return InputError(problem, subject=self._subject, remedy=remedy, settings=settings)

    def plan(self, size: FrameSize | None, channel_order: ChannelOrder) -> InputPlan:
        given = self._given
        pictures = self._picture_inputs()
        join = self._join(pictures)
        pictures, order = self._order(pictures, join)
        layout = self._layout(pictures, join)
        channels = self._channels(pictures, join, layout)
        contents = self._contents(channels)
        range_in = given.range_in or ("0..1" if given.stretch_in else None)
        if range_in is None:
            self._questions.ask("range_in")
        if given.range_out is None and given.output_kind == "picture":
            self._questions.ask("range_out")
        fixed = self._fixed_size(pictures, layout)
        if size is None and fixed is not None:
            size = fixed
            self._read.append(f"its pictures are {format_size(fixed)}")
        if size is None:
            self._questions.ask("size")
        self._questions.check()
        assert layout is not None
        assert size is not None
        assert channels is not None
        padded, pads = self._pads(size, fixed)
        small_size = self._small_size(size, layout)
        shapes = self._shapes(pictures, join, layout, channels, padded, small_size)
        complete = replace(
            given,
            inputs=tuple(pictures),
            join=join,
            order=order,
            layout=layout,
            x_content=contents[0],
            y_content=contents[1],
            range_in=range_in,
        )
        dtypes = {name: self._infos[name].dtype for name in shapes}
        for name, dtype in dtypes.items():
            if dtype.kind not in "fu":
                raise self._refuse(f"the input '{name}' is {dtype}; expected floating-point numbers or uint8")
        return InputPlan(
            conventions=complete,
            task=self._task,
            size=size,
            padded=padded,
            pads=pads,
            batch=self._batch,
            channel_order=channel_order,
            channels=channels,
            shapes=shapes,
            dtypes=dtypes,
            constants=self._constants(layout, padded),
            small_size=small_size,
            read=tuple(self._read),
        )

    def _picture_inputs(self) -> list[str]:
        """Return the inputs that take the sources: those that are neither small nor constant."""
        given = self._given
        constants = given.constants()
        for name in (*given.inputs, *given.small_inputs, *constants):
            if name not in self._infos:
                raise self._refuse(f"no input is named '{name}'; expected one of {', '.join(self._infos)}")
        others = {*given.small_inputs, *constants}
        if both := others.intersection(given.inputs):
            raise self._refuse(f"'{min(both)}' takes a source and something else; expected one of both")
        found = list(given.inputs) or [name for name in self._infos if name not in others]
        rest = [name for name in self._infos if name not in others and name not in found]
        if rest:
            raise self._refuse(
                f"nothing is said of the inputs {', '.join(rest)}; expected a value, or a smaller source",
                "Set {constant} or {small_inputs}",
                constant=f"{rest[0]}=0",
                small_inputs=rest[0],
            )
        if not found:
            raise self._refuse("no input takes a source; expected one or two")
        if len(found) > 2:
            raise self._refuse(
                f"it has the inputs {', '.join(found)}; expected two sources, or one input that joins them",
                "Set {inputs}, and {constant} or {small_inputs} for the others; a stack of more pictures is fused pair "
                "by pair, with a network that takes two",
                inputs=f"{found[0]},{found[1]}",
                constant=f"{found[2]}=0",
                small_inputs=found[2],
            )
        for name in found:
            words = set(_words(name))
            if words & {"timestep", "timesteps", "t", "noise"}:
                raise self._refuse(
                    f"the input '{name}' is a step of a diffusion loop; expected two sources",
                    "This network cannot be wrapped: its loop is outside of it",
                )
        return found

    def _join(self, pictures: Sequence[str]) -> Join | None:
        given = self._given.join
        if len(pictures) == 2:
            if given not in (None, "separate"):
                raise self._refuse(
                    f"join is {given}, but two inputs take sources: {', '.join(pictures)}; expected one input",
                    "Set {inputs}",
                    inputs=pictures[0],
                )
            return "separate"
        if given == "separate":
            raise self._refuse(
                f"join is separate, but only '{pictures[0]}' takes sources; expected two inputs"
            )
        if given is not None:
            return given
        found = self._read_join(self._infos[pictures[0]])
        if found is None:
            self._questions.ask("join")
        else:
            self._read.append(f"'{pictures[0]}' takes both sources, joined as {found}")
        return found

    def _read_join(self, info: TensorInfo) -> Join | None:
        dims = info.dims
        if len(dims) == 5:
            return "depth"
        for count in (dims[1], dims[3]) if len(dims) == 4 else ():
            if count in (2, 4, 6):
                return "channels"
            if count in (1, 3):
                return "batch"
        if _lone_channels(dims) is not None:
            return "channels"
        return _only({trial.join for trial in self._trials([info.name])})

    def _trials(self, pictures: Sequence[str]) -> list[_Trial]:
        """Return the ways in which the network takes two small pictures without an error."""
        if self._trial_results is None:
            self._trial_results = [
                trial for trial in self._candidates(pictures) if self._runs(pictures, trial)
            ]
        return self._trial_results

    def _candidates(self, pictures: Sequence[str]) -> list[_Trial]:
        """Return the ways in which networks take two pictures, as far as the conventions leave them open."""
        layouts: tuple[TensorLayout, ...] = ("nchw", "nhwc")
        deep: tuple[TensorLayout, ...] = ("ncdhw", "ndchw", "ndhwc")
        if len(pictures) == 2:
            found = [_Trial("separate", layout, (a, b)) for layout in layouts for a in (1, 3) for b in (1, 3)]
        else:
            found = [_Trial("channels", layout, (count,)) for layout in layouts for count in (2, 4, 6)]
            found += [_Trial("batch", layout, (count,)) for layout in layouts for count in (1, 3)]
            found += [_Trial("depth", layout, (count,)) for layout in deep for count in (1, 3)]
        ranks = {len(self._infos[name].dims) for name in pictures} - {0}
        return [
            trial
            for trial in found
            if self._given.join in (None, trial.join)
            and self._given.layout in (None, trial.layout)
            and ranks <= {len(trial.layout)}
        ]

    def _runs(self, pictures: Sequence[str], trial: _Trial) -> bool:
        """Try one way out, with pictures of zeros."""
        if self._takes is None:
            return False
        inputs: dict[str, NDArray[Any]] = {}
        for names, (height, width) in (
            (pictures, _TRIAL_SIZE),
            (self._given.small_inputs, _SMALL_TRIAL_SIZE),
        ):
            for index, name in enumerate(names):
                info = self._infos[name]
                counts = trial.channels if len(trial.channels) == len(names) else trial.channels * len(names)
                axes = {"n": 1, "d": 1, "c": counts[index], "h": height, "w": width}
                axes |= {"batch": {"n": 2}, "depth": {"d": 2}}.get(trial.join, {})
                fixed = info.dims or (None,) * len(trial.layout)
                shape = [
                    axes[axis] if dim is None else dim for axis, dim in zip(trial.layout, fixed, strict=True)
                ]
                sides = [dim for axis, dim in zip(trial.layout, fixed, strict=True) if axis in "hw"]
                if len({dim is None for dim in sides}) > 1:  # one side only is fixed: that is no side
                    return False
                small = {"n", "d", "c"}
                if any(axes[a] != s for a, s in zip(trial.layout, shape, strict=True) if a in small):
                    return False
                inputs[name] = np.zeros(shape, info.dtype)
        return self._takes(inputs | self._constants(trial.layout, _TRIAL_SIZE))

    def _order(self, pictures: list[str], join: str | None) -> tuple[list[str], Any]:
        """Return the inputs, x first, and the order of joined sources."""
        given = self._given
        if join != "separate":
            if given.order is None:
                self._questions.ask("order")
            return pictures, given.order
        if given.inputs:
            return pictures, given.order or self._listed(pictures)
        if given.order is not None:
            return (pictures[::-1] if given.order == "yx" else pictures), given.order
        for names in (pictures, pictures[::-1]):
            words = [set(_words(name)) for name in names]
            of_x, of_y = SOURCE_WORDS[self._task]
            if words[0] & of_x and words[1] & of_y and not (words[0] & of_y or words[1] & of_x):
                self._read.append(f"x goes into '{names[0]}' and y into '{names[1]}'")
                return list(names), self._listed(names)
        self._questions.ask("order")
        return pictures, "xy"

    def _listed(self, names: Sequence[str]) -> SourceOrder:
        """Return the order in which the network lists the inputs of x and of y."""
        listed = list(self._infos)
        return "xy" if listed.index(names[0]) < listed.index(names[1]) else "yx"

    def _layout(self, pictures: Sequence[str], join: str | None) -> TensorLayout | None:
        rank = len(self._infos[pictures[0]].dims)
        if self._given.layout is not None:
            if rank not in (0, len(self._given.layout)):
                raise self._refuse(
                    f"the input '{pictures[0]}' has {rank} axes, but the layout {self._given.layout} "
                    f"{len(self._given.layout)}; expected equal numbers"
                )
            return self._given.layout
        found = self._read_layout(pictures, join, rank)
        if found is None:
            self._questions.ask("layout")
        else:
            self._read.append(f"its inputs are {found.upper()}")
        return found

    def _read_layout(self, pictures: Sequence[str], join: str | None, rank: int) -> TensorLayout | None:
        expected = {1, 2, 3, 4, 6} if join in (None, "channels") else {1, 3}
        for name in pictures:
            dims = self._infos[name].dims
            if rank == 4:
                if dims[1] in expected and dims[3] not in expected:
                    return "nchw"
                if dims[3] in expected and dims[1] not in expected:
                    return "nhwc"
                lone = _lone_channels(dims)
                if lone is not None:
                    return "nchw" if lone == 1 else "nhwc"
            if rank == 3:
                if dims[0] in expected:
                    return "chw"
                if dims[2] in expected:
                    return "hwc"
            if rank == 2:
                return "hw"
            if rank == 5:
                if dims[1] in (1, 3) and (dims[2] == 2 or dims[2] is None):
                    return "ncdhw"
                if dims[1] == 2 and dims[2] in (1, 3):
                    return "ndchw"
                if dims[1] == 2 and dims[4] in (1, 3):
                    return "ndhwc"
        if rank not in (0, 2, 3, 4, 5):
            raise self._refuse(f"the input '{pictures[0]}' has {rank} axes; expected 2 to 5")
        return _only({trial.layout for trial in self._trials(pictures) if join in (None, trial.join)})

    def _channels(
        self, pictures: Sequence[str], join: str | None, layout: str | None
    ) -> Mapping[SourceName, Channels] | None:
        if layout is None or join is None:
            return None
        counts: list[int | None] = []
        for name in pictures:
            info = self._infos[name]
            count = (
                info.dims[layout.index("c")] if info.dims and "c" in layout else (1 if info.dims else None)
            )
            counts.append(count)
        if None in counts:
            tried = [t.channels for t in self._trials(pictures) if t.join == join and t.layout == layout]
            for index in range(len(counts)):
                counts[index] = counts[index] or _only({channels[index] for channels in tried})
        if join == "separate":
            pair = [self._own_channels(counts[i], source) for i, source in enumerate(SOURCES)]
            return {"x": pair[0], "y": pair[1]}
        total = counts[0]
        self._check_stack(pictures[0], join, layout, total)
        if join == "channels" and total == 4:
            # Color of one source and gray of the other: of the visible one, wherever it stands.
            self._read.append("x enters in three channels and y in one")
            return {"x": 3, "y": 1}
        if total is not None and join == "channels":
            total //= 2
        each = self._own_channels(total, "x")
        return {"x": each, "y": each}

    def _check_stack(self, name: str, join: str, layout: str, channels: int | None) -> None:
        """Refuse networks that take more pictures than two."""
        dims = self._infos[name].dims
        axis = {"depth": "d", "batch": "n", "channels": "c"}[join]
        if axis not in layout:
            raise self._refuse(
                f"join is {join}, but the layout {layout} has no such axis; expected one with it"
            )
        count = channels if join == "channels" else (dims[layout.index(axis)] if dims else None)
        allowed = (None, 2, 4, 6) if join == "channels" else (None, 2)
        if count not in allowed:
            raise self._refuse(
                f"the input '{name}' joins {count} pictures along its {join}; expected two sources",
                "Export the network for two pictures and fuse stacks pair by pair",
            )
        if join == "batch" and self._batch > 1:
            raise self._refuse(
                f"batch is {self._batch}, but the network joins the two sources along the batch; expected 1"
            )

    def _own_channels(self, count: int | None, source: SourceName) -> Channels:
        """Return in how many channels a source enters; by its content where the network does not say."""
        if count is None:
            content = self._given.x_content if source == "x" else self._given.y_content
            if content is None:
                self._questions.ask(f"{source}_content")
            return 3 if content in ("rgb", "bgr") else 1
        if count not in (1, 3):
            raise self._refuse(
                f"the input of {source} has {count} channels; expected 1 or 3",
                "Set {layout}, or {join} where it takes both sources",
                layout=...,
                join=...,
            )
        return 3 if count == 3 else 1

    def _contents(self, channels: Mapping[SourceName, Channels] | None) -> tuple[Any, Any]:
        given = self._given
        contents: list[Any] = [given.x_content, given.y_content]
        if channels is None:
            return contents[0], contents[1]
        for index, source in enumerate(SOURCES):
            count = channels[source]
            if contents[index] in ("rgb", "bgr") and count == 1:
                raise self._refuse(
                    f"{source}_content is {contents[index]}, but the network takes {source} in one channel; expected "
                    f"luma or gray"
                )
            if contents[index] is not None:
                continue
            if source == "y" and self._task == "vif":
                contents[index] = "gray"
                self._read.append("the infrared source enters in gray")
            elif count == 1:
                contents[index] = "luma"
                self._read.append(f"{source} enters as its luma")
            else:
                self._questions.ask(f"{source}_content")
        return contents[0], contents[1]

    def _fixed_size(self, pictures: Sequence[str], layout: str | None) -> FrameSize | None:
        if layout is None:
            return None
        found = set()
        for name in pictures:
            dims = self._infos[name].dims
            if dims:
                height, width = dims[layout.index("h")], dims[layout.index("w")]
                if (height is None) != (width is None):
                    raise self._refuse(
                        f"the input '{name}' fixes one side only, {height or width}; expected both or none",
                        "Check {layout}, or export the network with both sides dynamic",
                        layout=...,
                    )
                if height is not None and width is not None:
                    found.add((height, width))
        if len(found) > 1:
            raise self._refuse("its two inputs have different sizes; expected equal ones")
        return found.pop() if found else None

    def _pads(self, size: FrameSize, fixed: FrameSize | None) -> tuple[FrameSize, Pads]:
        """Return the size of the network's pictures, and what is added to the frames for it."""
        given = self._given
        starts, ends, padded = [], [], []
        for side, exact in zip(size, fixed or (None, None), strict=True):
            inner = side + 2 * given.border
            if exact is not None:
                target = exact
            else:
                target = math.ceil(inner / given.multiple) * given.multiple
                if given.pad_always and target == inner:
                    target += given.multiple
            rest = target - inner
            if rest < 0:
                raise self._refuse(
                    f"it takes {format_size(fixed or size)} only, but the frames are {format_size(size)}; expected "
                    f"frames of its size",
                    "Leave {size} out, or export the network with dynamic sizes; the runtime fits frames of other "
                    "sizes",
                    size=...,
                )
            start = given.border + (rest // 2 if given.pad_at == "around" else 0)
            starts.append(start)
            ends.append(target - side - start)
            padded.append(target)
        pads = Pads(starts[0], starts[1], ends[0], ends[1])
        if pads.any and given.padding is None:
            self._questions.ask("padding")
            self._questions.check()
        lost = 1 if given.padding == "reflect" else 0
        if pads.any and given.padding in ("reflect", "symmetric"):
            for side, pad in ((size[0], max(pads.top, pads.bottom)), (size[1], max(pads.left, pads.right))):
                if pad > side - lost:
                    raise self._refuse(
                        f"{pad} pixels cannot be mirrored from a side of {side}; expected fewer"
                    )
        return (padded[0], padded[1]), pads

    def _small_size(self, size: FrameSize, layout: str) -> FrameSize:
        """Return the size of the smaller sources: that of the input if fixed, else the shorter side as given."""
        for name in self._given.small_inputs:
            dims = self._infos[name].dims
            if len(dims) == len(layout):
                height, width = dims[layout.index("h")], dims[layout.index("w")]
                if height is not None and width is not None:
                    return height, width
        shorter = min(size)
        small = self._given.small_side
        # As torchvision.transforms.Resize(size) does: the longer side is truncated.
        return (
            small if size[0] == shorter else int(small * size[0] / shorter),
            small if size[1] == shorter else int(small * size[1] / shorter),
        )

    def _shapes(
        self,
        pictures: Sequence[str],
        join: str | None,
        layout: str,
        channels: Mapping[SourceName, Channels],
        padded: FrameSize,
        small_size: FrameSize,
    ) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for names, (height, width) in ((pictures, padded), (self._given.small_inputs, small_size)):
            for index, name in enumerate(names):
                joined = len(names) == 1
                count = (
                    sum(channels.values())
                    if join == "channels" and joined
                    else channels["y" if index else "x"]
                )
                axes = {
                    "n": 2 if join == "batch" and joined else self._batch,
                    "c": count,
                    "d": 2 if join == "depth" and joined else 1,
                    "h": height,
                    "w": width,
                }
                shape = tuple(axes[axis] for axis in layout)
                self._check_shape(name, shape, layout)
                shapes[name] = shape
        return shapes

    def _check_shape(self, name: str, shape: tuple[int, ...], layout: str) -> None:
        dims = self._infos[name].dims
        if not dims:
            return
        if len(dims) != len(shape) or any(
            d is not None and d != s for d, s in zip(dims, shape, strict=False)
        ):
            shown = [dim if dim is not None else "?" for dim in dims]
            raise self._refuse(
                f"the input '{name}' is {shown}, but the conventions give {list(shape)} ({layout.upper()}); "
                f"expected equal sizes".replace("'?'", "?"),
                "Check {layout}, {x_content}, {batch} and {size}",
                layout=...,
                x_content=...,
                batch=...,
                size=...,
            )
        if "n" not in layout and self._batch > 1:
            raise self._refuse(f"batch is {self._batch}, but its inputs have no batch axis; expected 1")

    def _constants(self, layout: str, padded: FrameSize) -> dict[str, NDArray[Any]]:
        found = {}
        for name, numbers in self._given.constants().items():
            info = self._infos[name]
            sides = dict(zip("hw", padded, strict=True)) if len(info.dims) == len(layout) else {}
            shape = tuple(
                dim if dim is not None else sides.get(layout[i] if sides else "", 1)
                for i, dim in enumerate(info.dims)
            )
            count = math.prod(shape)
            if len(numbers) not in (1, count):
                raise self._refuse(
                    f"{len(numbers)} values for the input '{name}', which has {count}; expected one or {count}"
                )
            values = np.asarray(numbers, np.float64).astype(info.dtype)
            found[name] = np.broadcast_to(values.reshape(-1), (count,)).reshape(shape).copy()
        return found


def plan_outputs(
    plan: InputPlan, shapes: Mapping[str, tuple[int, ...]], subject: str = "the network"
) -> Plan:
    """Complete the conventions of the output.

    Args:
        plan: The plan of the inputs.
        shapes: Shapes of the network's outputs by name.
        subject: Name of the network in messages.

    Raises:
        QuestionsError: Something is neither given nor said by the network.
        InputError: No output is a picture of the size of the frames.
    """
    given, read = plan.conventions, list(plan.read)
    names = given.output or _only_picture(plan, shapes, subject, read)
    layouts, channels = {}, 0
    for name in names:
        if name not in shapes:
            raise InputError(
                f"no output is named '{name}'; expected one of {', '.join(shapes)}", subject=subject
            )
        layouts[name] = _output_layout(plan, name, shapes[name], subject)
        channels = _axis(layouts[name], shapes[name], "c")
    if given.output_kind == "weights":
        _check_weights(plan, layouts, shapes, subject)
    else:
        name = names[0]
        if len(names) > 1:
            raise InputError(
                f"{', '.join(names)}; expected one picture",
                subject="output",
                remedy="Name one, or say that they are weights: {output_kind}",
                settings={"output_kind": "weights"},
            )
        if channels == 2:
            raise InputError(
                f"its output '{name}' has two channels, as the flow field of a registration network has; expected a "
                f"picture in 1 or 3 channels",
                subject=subject,
                remedy="Name another one with {output}, or {output_kind} if these are the weights of the sources",
                settings={"output": ..., "output_kind": "weights"},
            )
        if channels not in (1, 3):
            raise InputError(
                f"its output '{name}' has {channels} channels; expected a picture in 1 or 3", subject=subject
            )
    color = _color_out(plan, channels, subject, read)
    complete = replace(given, output=tuple(names), color_out=color)
    values = {name: getattr(plan, name) for name in InputPlan.__dataclass_fields__}
    values |= {"conventions": complete, "read": tuple(read)}
    return Plan(**values, output_layouts=layouts, output_channels=channels)


def _only_picture(
    plan: InputPlan, shapes: Mapping[str, tuple[int, ...]], subject: str, read: list[str]
) -> tuple[str, ...]:
    """Return the one output that is a picture; asks where there are several."""
    if len(shapes) == 1:
        return tuple(shapes)
    wanted = (1, 3) if plan.conventions.output_kind == "picture" else (1, 2)
    found = []
    for name, shape in shapes.items():
        try:
            layout = _output_layout(plan, name, shape, subject)
        except InputError:
            continue
        if _axis(layout, shape, "c") in wanted:
            found.append(name)
    if len(found) == 1:
        read.append(f"its output '{found[0]}' is the only picture")
        return (found[0],)
    listed = "|".join(found or shapes)
    raise QuestionsError({"output": listed}, subject)


_OUTPUT_LAYOUTS: Final[Mapping[int, tuple[str, ...]]] = {
    2: ("hw", "wh"),
    3: ("chw", "hwc", "nhw"),
    4: ("nchw", "nhwc", "ncwh", "nwhc"),
    5: ("ncdhw", "ndchw", "ndhwc"),
}


def _output_layout(plan: InputPlan, name: str, shape: tuple[int, ...], subject: str) -> str:
    """Return the axes of an output: as given, or as its shape fits, the layout of the inputs first."""
    given = plan.conventions.output_layout
    layouts = _OUTPUT_LAYOUTS.get(len(shape), ())
    own = plan.conventions.layout
    if own in layouts:
        layouts = (own, *(layout for layout in layouts if layout != own))
    for layout in (given,) if given is not None else layouts:
        if layout is not None and len(layout) == len(shape) and _fits(plan, layout, shape):
            return layout
    height, width = plan.padded
    expected = f"{width}x{height}" + ("" if plan.padded == plan.size else f" or {format_size(plan.size)}")
    raise InputError(
        f"its output '{name}' is {list(shape)}"
        + (f", not {given.upper()}" if given else "")
        + f"; expected a "
        f"picture of {expected}",
        subject=subject,
        remedy="Check {output} and {output_layout}",
        settings={"output": ..., "output_layout": ...},
    )


def _fits(plan: InputPlan, layout: str, shape: tuple[int, ...]) -> bool:
    size = (_axis(layout, shape, "h"), _axis(layout, shape, "w"))
    two = (1, 2) if plan.conventions.output_kind == "weights" else (1,)
    batches = (plan.batch, 2) if plan.conventions.output_kind == "weights" else (plan.batch,)
    return (
        size in (plan.padded, plan.size)
        and _axis(layout, shape, "n") in batches
        and _axis(layout, shape, "d") in two
    )


def _axis(layout: str, shape: Sequence[int], axis: str) -> int:
    """Return the size of an axis, 1 if the layout has none."""
    return shape[layout.index(axis)] if axis in layout else 1


def _check_weights(
    plan: InputPlan, layouts: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], subject: str
) -> None:
    """Check that the outputs are one or two weight maps."""
    count = 0
    for name, layout in layouts.items():
        shape = shapes[name]
        count += math.prod(_axis(layout, shape, axis) for axis in "ncd") // plan.batch
    if count not in (1, 2):
        raise InputError(
            f"its output holds {count} weight maps; expected one, of the first source, or two",
            subject=subject,
        )


def _color_out(plan: InputPlan, channels: int, subject: str, read: list[str]) -> Any:
    """Return where the color of the result is from."""
    given = plan.conventions
    if given.output_kind == "weights":
        channels = 3 if plan.frame_channels("x") == 3 else 1
    color = given.color_out
    if color in ("rgb", "bgr") and channels == 1:
        raise InputError(
            f"{color}, but the network gives one channel; expected gray or a chroma", subject="color_out"
        )
    if color is not None:
        return color
    contents = (given.x_content, given.y_content)
    if channels == 1 and contents == ("gray", "gray"):
        read.append("the result is gray, as both sources are")
        return "gray"
    if channels == 3 and given.x_content in ("rgb", "bgr"):
        read.append(f"the result has the network's own color, {given.x_content}")
        return given.x_content
    questions = _Questions(subject)
    questions.ask("color_out")
    questions.check()
    return None


def _words(name: str) -> list[str]:
    """Split a name into lower-case words: at other characters than letters, and where capitals begin."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())
