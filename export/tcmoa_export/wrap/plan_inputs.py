"""Completing the conventions of a network's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tcmoa_export.wrap.input_context import InputContext
from tcmoa_export.wrap.input_reading import InputReader
from tcmoa_export.wrap.input_shapes import InputShapes
from tcmoa_export.wrap.network import Arrays, TensorInfo
from tcmoa_export.wrap.plan import InputPlan
from tcmoa_export.wrap.questions import Questions
from tcmoa_runtime.contract import Task
from tcmoa_runtime.images import format_size
from tcmoa_runtime.options.wrap import Conventions
from tcmoa_runtime.typing import ChannelOrder, FrameSize


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
    infos = {info.name: info for info in inputs}
    context = InputContext(infos, conventions, task, batch, takes, subject, Questions(subject))
    return _complete(context, size, channel_order)


def _complete(context: InputContext, size: FrameSize | None, channel_order: ChannelOrder) -> InputPlan:
    given, reader, shaping = context.given, InputReader(context), InputShapes(context)
    pictures = reader.picture_inputs()
    join = reader.join(pictures)
    pictures, order = reader.order(pictures, join)
    layout = reader.layout(pictures, join)
    channels = reader.channels(pictures, join, layout)
    contents = reader.contents(channels)
    range_in = given.range_in or ("0..1" if given.stretch_in else None)
    if range_in is None:
        context.questions.ask("range_in")
    if given.range_out is None and given.output_kind == "picture":
        context.questions.ask("range_out")
    fixed = shaping.fixed_size(pictures, layout)
    if size is None and fixed is not None:
        size = fixed
        context.read.append(f"its pictures are {format_size(fixed)}")
    if size is None:
        context.questions.ask("size")
    context.questions.check()
    assert layout is not None
    assert size is not None
    assert channels is not None
    padded, pads = shaping.pads(size, fixed)
    small_size = shaping.small_size(size, layout)
    shapes = shaping.shapes(pictures, join, layout, channels, padded, small_size)
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
    dtypes = {name: context.infos[name].dtype for name in shapes}
    for name, dtype in dtypes.items():
        if dtype.kind not in "fu":
            raise context.refuse(f"the input '{name}' is {dtype}; expected floating-point numbers or uint8")
    return InputPlan(
        conventions=complete,
        task=context.task,
        size=size,
        padded=padded,
        pads=pads,
        batch=context.batch,
        channel_order=channel_order,
        channels=channels,
        shapes=shapes,
        dtypes=dtypes,
        constants=shaping.constants(layout, padded),
        small_size=small_size,
        read=tuple(context.read),
    )
