"""From a network and its conventions to the plan and the graph."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import onnx

from tcmoa_export.wrap.build import compose_graph
from tcmoa_export.wrap.network import Network
from tcmoa_export.wrap.plain import network_inputs, repeat_for_batch
from tcmoa_export.wrap.plan import SOURCES, InputPlan, Plan
from tcmoa_export.wrap.plan_inputs import plan_inputs
from tcmoa_export.wrap.plan_outputs import plan_outputs
from tcmoa_export.wrap.prepare import prepare_graph, shape_of
from tcmoa_export.wrap.questions import QuestionsError
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.options.wrap import Conventions
from tcmoa_runtime.typing import ChannelOrder, FrameSize, SourceName

_ANY_ANSWER: Final = {"range_in": "0..1", "range_out": "0..1", "order": "xy"}
"""Conventions that change no shape, with a value that stands for theirs until the outputs are known."""


def make_plan(
    network: Network,
    conventions: Conventions,
    *,
    task: Task,
    size: FrameSize | None,
    batch: int = 1,
    channel_order: ChannelOrder = "rgb",
) -> Plan:
    """Complete the conventions of a network with what it says itself.

    The original network is run once, because only that shows the shapes of its outputs without doubt.

    Args:
        network: The network.
        conventions: What was given.
        task: Task of the bundle.
        size: Size of the frames; None for that of a network that takes one size only.
        batch: Number of frames.
        channel_order: Channel order of the frames.

    Raises:
        QuestionsError: Something is neither given nor said by the network; its `questions` are all of them.
        InputError: The network and the conventions do not fit each other, or the network cannot be wrapped.
    """

    def plan_with(given: Conventions) -> Plan:
        inputs = plan_inputs(
            network.inputs,
            given,
            task=task,
            size=size,
            batch=batch,
            channel_order=channel_order,
            takes=network.takes,
            subject=network.subject,
        )
        zeros = _zero_inputs(inputs)
        try:
            outputs = network.run(zeros)
        except InputError as error:
            multiple = _multiple_of(network, inputs)
            if multiple is None:
                raise
            raise InputError(
                f"it does not take {format_size(inputs.padded)}; expected multiples of {multiple} pixels",
                subject=network.subject,
                remedy="Set {multiple} and {padding}, or another {size}",
                settings={"multiple": multiple, "padding": given.padding or ..., "size": ...},
            ) from error
        return plan_outputs(inputs, {name: value.shape for name, value in outputs.items()}, network.subject)

    try:
        return plan_with(conventions)
    except QuestionsError as error:
        if not error.questions.keys() <= _ANY_ANSWER.keys():
            raise
        answers = {name: _ANY_ANSWER[name] for name in error.questions}
        try:
            plan_with(Conventions.from_values({**conventions.to_json(), **answers}, network.subject))
        except QuestionsError as later:  # one line for all questions
            raise QuestionsError(error.questions | later.questions, network.subject) from None
        raise


def _multiple_of(network: Network, plan: InputPlan) -> int | None:
    """Return the least power of 2 whose multiples a network takes that does not take the size of the plan."""
    given = plan.conventions
    for multiple in (2, 4, 8, 16, 32, 64):
        height, width = (math.ceil(side / multiple) * multiple for side in plan.padded)
        if multiple <= given.multiple or (height, width) == plan.padded:
            continue
        shapes = {
            name: tuple(
                {"h": height, "w": width}.get(axis, size)
                for axis, size in zip(given.layout or "", plan.shapes[name], strict=True)
            )
            for name in given.inputs
        }
        zeros = {
            name: np.zeros(shapes.get(name, plan.shapes[name]), plan.dtypes[name]) for name in plan.shapes
        }
        if network.takes({**plan.constants, **zeros}):
            return multiple
    return None


def _zero_inputs(plan: InputPlan) -> dict[str, np.ndarray[Any, Any]]:
    frames: dict[SourceName, np.ndarray[Any, Any]] = {
        source: np.zeros((*plan.size, plan.frame_channels(source)), np.uint8) for source in SOURCES
    }
    return repeat_for_batch(plan, network_inputs(plan, frames))


def wrapped_graph(network: Network, plan: Plan) -> onnx.ModelProto:
    """Build the graph of a network with its conventions: uint8 frames in, one uint8 frame out.

    Raises:
        InputError: The network holds what a bundle may not hold.
    """
    outputs = plan.conventions.output
    proto = network.graph(plan.shapes, plan.constants)
    prepared = prepare_graph(proto, plan.shapes, plan.constants, outputs, network.subject)
    for info in prepared.graph.output:
        if len(shape_of(info)) != len(plan.output_layouts[info.name]):
            raise InputError(
                f"its output '{info.name}' is {list(shape_of(info))} in the graph, but has "
                f"{len(plan.output_layouts[info.name])} axes where the network runs; expected equal shapes",
                subject=network.subject,
            )
    return compose_graph(prepared, plan)
