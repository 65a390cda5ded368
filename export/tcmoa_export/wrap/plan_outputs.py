"""Completing the conventions of a network's outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from tcmoa_export.wrap.plan import InputPlan, Plan
from tcmoa_export.wrap.questions import Questions, QuestionsError
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.options.wrap import ColorOut


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


def _color_out(plan: InputPlan, channels: int, subject: str, read: list[str]) -> ColorOut | None:
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
    questions = Questions(subject)
    questions.ask("color_out")
    questions.check()
    return None
