"""Which inputs of a network take the sources, and how: joined or not, in which layout, channels and content."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

from tcmoa_export.wrap.input_context import InputContext
from tcmoa_export.wrap.input_trials import InputTrials
from tcmoa_export.wrap.network import TensorInfo
from tcmoa_export.wrap.plan import SOURCES, Channels
from tcmoa_runtime.contract import Task
from tcmoa_runtime.options.wrap import Join, SourceContent, SourceOrder, TensorLayout
from tcmoa_runtime.typing import SourceName

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

ItemT = TypeVar("ItemT")


def _only(items: Collection[ItemT]) -> ItemT | None:
    """Return the item if there is just one."""
    return next(iter(items)) if len(items) == 1 else None


def _lone_channels(dims: Sequence[int | None]) -> int | None:
    """Return the axis of the channels, 1 or 3, where only that one is fixed; None otherwise."""
    if len(dims) != 4 or dims[2] is not None or (dims[1] is None) == (dims[3] is None):
        return None
    return 1 if dims[3] is None else 3


class InputReader:
    """Reads off a network how it takes the sources; what it does not say becomes a question."""

    def __init__(self, context: InputContext) -> None:
        self._context, self._infos, self._given = context, context.infos, context.given
        self._task, self._batch = context.task, context.batch
        self._questions, self._read = context.questions, context.read
        self._trials = InputTrials(context)

    def picture_inputs(self) -> list[str]:
        """Return the inputs that take the sources: those that are neither small nor constant."""
        given = self._given
        constants = given.constants()
        for name in (*given.inputs, *given.small_inputs, *constants):
            if name not in self._infos:
                raise self._context.refuse(
                    f"no input is named '{name}'; expected one of {', '.join(self._infos)}"
                )
        others = {*given.small_inputs, *constants}
        if both := others.intersection(given.inputs):
            raise self._context.refuse(
                f"'{min(both)}' takes a source and something else; expected one of both"
            )
        found = list(given.inputs) or [name for name in self._infos if name not in others]
        rest = [name for name in self._infos if name not in others and name not in found]
        if rest:
            raise self._context.refuse(
                f"nothing is said of the inputs {', '.join(rest)}; expected a value, or a smaller source",
                "Set {constant} or {small_inputs}",
                constant=f"{rest[0]}=0",
                small_inputs=rest[0],
            )
        if not found:
            raise self._context.refuse("no input takes a source; expected one or two")
        if len(found) > 2:
            raise self._context.refuse(
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
                raise self._context.refuse(
                    f"the input '{name}' is a step of a diffusion loop; expected two sources",
                    "This network cannot be wrapped: its loop is outside of it",
                )
        return found

    def join(self, pictures: Sequence[str]) -> Join | None:
        """Return how the sources are joined; None if that is open."""
        given = self._given.join
        if len(pictures) == 2:
            if given not in (None, "separate"):
                raise self._context.refuse(
                    f"join is {given}, but two inputs take sources: {', '.join(pictures)}; expected one input",
                    "Set {inputs}",
                    inputs=pictures[0],
                )
            return "separate"
        if given == "separate":
            raise self._context.refuse(
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
        return _only({trial.join for trial in self._trials.results([info.name])})

    def order(self, pictures: list[str], join: str | None) -> tuple[list[str], SourceOrder | None]:
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

    def layout(self, pictures: Sequence[str], join: str | None) -> TensorLayout | None:
        """Return the axes of the inputs; None if they are open."""
        rank = len(self._infos[pictures[0]].dims)
        if self._given.layout is not None:
            if rank not in (0, len(self._given.layout)):
                raise self._context.refuse(
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
            raise self._context.refuse(f"the input '{pictures[0]}' has {rank} axes; expected 2 to 5")
        return _only({trial.layout for trial in self._trials.results(pictures) if join in (None, trial.join)})

    def channels(
        self, pictures: Sequence[str], join: str | None, layout: str | None
    ) -> Mapping[SourceName, Channels] | None:
        """Return in how many channels each source enters; None if layout or join are open."""
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
            tried = [
                t.channels for t in self._trials.results(pictures) if t.join == join and t.layout == layout
            ]
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
            raise self._context.refuse(
                f"join is {join}, but the layout {layout} has no such axis; expected one with it"
            )
        count = channels if join == "channels" else (dims[layout.index(axis)] if dims else None)
        allowed = (None, 2, 4, 6) if join == "channels" else (None, 2)
        if count not in allowed:
            raise self._context.refuse(
                f"the input '{name}' joins {count} pictures along its {join}; expected two sources",
                "Export the network for two pictures and fuse stacks pair by pair",
            )
        if join == "batch" and self._batch > 1:
            raise self._context.refuse(
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
            raise self._context.refuse(
                f"the input of {source} has {count} channels; expected 1 or 3",
                "Set {layout}, or {join} where it takes both sources",
                layout=...,
                join=...,
            )
        return 3 if count == 3 else 1

    def contents(
        self, channels: Mapping[SourceName, Channels] | None
    ) -> tuple[SourceContent | None, SourceContent | None]:
        """Return what of x and of y goes in; None where that is open."""
        given = self._given
        contents: list[SourceContent | None] = [given.x_content, given.y_content]
        if channels is None:
            return contents[0], contents[1]
        for index, source in enumerate(SOURCES):
            count = channels[source]
            if contents[index] in ("rgb", "bgr") and count == 1:
                raise self._context.refuse(
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


def _words(name: str) -> list[str]:
    """Split a name into lower-case words: at other characters than letters, and where capitals begin."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())
