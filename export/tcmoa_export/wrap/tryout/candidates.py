"""The likely conventions of a network: what it says itself, and every likely answer to what it does not say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Generic, TypeVar

from tcmoa_export.wrap.network import Arrays, TensorInfo
from tcmoa_export.wrap.plan import InputPlan, Plan
from tcmoa_export.wrap.plan_inputs import plan_inputs
from tcmoa_export.wrap.plan_outputs import plan_outputs
from tcmoa_export.wrap.questions import QuestionsError
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.wrap import Conventions, ValueRange
from tcmoa_runtime.typing import FrameSize

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

WORK_SIZE: Final[FrameSize] = (192, 256)
"""Height and width at which networks of any size are tried: multiples of 64, a sixth of 640x480."""

PlanT = TypeVar("PlanT", bound=InputPlan)

_Answer = Mapping[str, object]
"""Values of fields of the conventions."""

_RANGES: Final[tuple[ValueRange, ...]] = ("0..1", "0..255", "-1..1", "mean-std")

_ANSWERS: Final[Mapping[str, Sequence[_Answer]]] = {
    "join": ({"join": "channels"}, {"join": "batch"}),
    "order": ({"order": "xy"}, {"order": "yx"}),
    "layout": ({"layout": "nchw"}, {"layout": "nhwc"}),
    "range_in": tuple({"range_in": name} for name in _RANGES),
    "range_out": tuple({"range_out": name} for name in _RANGES),
    "padding": ({"padding": "reflect"},),
}
"""Likely answers, the most usual first. `mean-std` stands for ImageNet's mean and deviation."""

_SAME_CONTENT: Final[Sequence[_Answer]] = (
    {"x_content": "rgb", "y_content": "rgb"},
    {"x_content": "bgr", "y_content": "bgr"},
)
_CHROMA: Final[Mapping[Task, Sequence[_Answer]]] = {
    "vif": ({"color_out": "chroma-x"},),
    "mef": ({"color_out": "chroma-weighted"}, {"color_out": "chroma-nearest"}),
    "mff": ({"color_out": "chroma-weighted"}, {"color_out": "chroma-nearest"}),
}
_GRAY: Final[_Answer] = {"color_out": "gray"}


@dataclass(frozen=True)
class LikelyInputs:
    """Likely plans of the inputs.

    Attributes:
        plans: The plans, the most usual first; the range of the output is still open.
        takes_any_size: Whether the network takes pictures of any size.
    """

    plans: tuple[LikelyPlan[InputPlan], ...]
    takes_any_size: bool


@dataclass(frozen=True)
class LikelyPlan(Generic[PlanT]):
    """A plan and the conventions that state it: what is read off the network is not among them."""

    stated: Conventions
    plan: PlanT


def likely_input_plans(
    inputs: Sequence[TensorInfo],
    given: Conventions,
    task: Task,
    takes: Callable[[Arrays], bool],
    subject: str,
) -> LikelyInputs:
    """Return the likely plans of the inputs.

    Args:
        inputs: Inputs of the network.
        given: Conventions that are known; they are not varied.
        task: The task.
        takes: Whether the network runs with given inputs.
        subject: Name of the network in messages.

    Raises:
        InputError: The network cannot be wrapped, or does not fit what is given.
    """
    found: list[LikelyPlan[InputPlan]] = []
    refusals: list[InputError] = []
    sizes: set[FrameSize | None] = set()

    def expand(conventions: Conventions, size: FrameSize | None) -> None:
        try:
            plan = plan_inputs(inputs, conventions, task=task, size=size, takes=takes, subject=subject)
        except QuestionsError as error:
            asked = [name for name in error.questions if name != "size"]
            work = WORK_SIZE if "size" in error.questions else size
            for answer in _combine(asked, task):
                changed = _with(conventions, answer)
                if changed is not None:
                    expand(changed, work)
        except InputError as error:  # an answer that does not fit the network
            refusals.append(error)
        else:
            found.append(LikelyPlan(conventions, plan))
            sizes.add(size)

    # The range of the output is varied below, without running the network again.
    open_range = given.range_out is None and given.output_kind == "picture"
    expand(replace(given, range_out="0..1") if open_range else given, None)
    found = [likely for likely in found if given.mean or _fits_channels(likely.plan)]
    if not found:
        raise refusals[0]
    if open_range:
        found = [
            LikelyPlan(
                replace(likely.stated, range_out=None),
                replace(likely.plan, conventions=replace(likely.plan.conventions, range_out=None)),
            )
            for likely in found
        ]
    return LikelyInputs(tuple(found), WORK_SIZE in sizes)


def likely_plans(
    likely: LikelyPlan[InputPlan], shapes: Mapping[str, tuple[int, ...]], subject: str
) -> tuple[list[LikelyPlan[Plan]], list[InputError]]:
    """Return the likely plans of the output for one of the inputs, and why others do not fit.

    Args:
        likely: A plan of the inputs.
        shapes: Shapes of the network's outputs by name.
        subject: Name of the network in messages.
    """
    plan, given = likely.plan, likely.plan.conventions
    found: list[LikelyPlan[Plan]] = []
    refusals: list[InputError] = []

    def expand(answer: _Answer, may_be_weights: bool) -> None:
        conventions = replace(given, **answer)  # type: ignore[arg-type]  # fields by name
        try:
            complete = plan_outputs(replace(plan, conventions=conventions), shapes, subject)
        except QuestionsError as error:
            for further in _output_answers(error, conventions, plan, shapes):
                expand({**answer, **further}, False)
        except InputError as error:
            refusals.append(error)
            if may_be_weights:
                expand({**answer, "output_kind": "weights", "range_out": None}, False)
        else:
            stated = replace(likely.stated, **answer)  # type: ignore[arg-type]  # fields by name
            found.append(LikelyPlan(stated, complete))

    ranges: Sequence[ValueRange | None] = (given.range_out,)
    if given.range_out is None and given.output_kind == "picture":
        ranges = [name for name in _RANGES if name != "mean-std" or given.range_in == "mean-std"]
    for name in ranges:
        expand({"range_out": name}, name == ranges[0] and not given.output)
    return found, refusals


def _combine(asked: Sequence[str], task: Task) -> Iterator[_Answer]:
    """Yield the likely answers to several questions at once, the most usual first."""
    contents = {"x_content", "y_content"}.intersection(asked)
    lists: list[Sequence[_Answer]] = [_ANSWERS[name] for name in asked if name in _ANSWERS]
    if contents:
        lists.append(
            _SAME_CONTENT
            if len(contents) == 2
            else [{name: answer[name] for name in contents} for answer in _SAME_CONTENT]
        )
    for answers in product(*lists):
        yield {name: value for answer in answers for name, value in answer.items()}


def _with(conventions: Conventions, answer: _Answer) -> Conventions | None:
    """Return conventions with an answer; None if the two contradict each other."""
    values = dict(answer)
    if "mean-std" in (values.get("range_in"), values.get("range_out")) and not conventions.mean:
        values |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    try:
        changed = replace(conventions, **values)  # type: ignore[arg-type]  # fields by name
        changed.check_ranges()
    except InputError:
        return None
    return changed


def _fits_channels(plan: InputPlan) -> bool:
    """Return whether mean and deviation have as many numbers as the sources have channels."""
    return len(plan.conventions.mean) in (0, 1) or set(plan.channels.values()) == {3}


def _output_answers(
    error: QuestionsError, given: Conventions, plan: InputPlan, shapes: Mapping[str, tuple[int, ...]]
) -> Sequence[_Answer]:
    if "output" in error.questions:
        return [{"output": (name,)} for name in shapes]
    gray = "gray" in (given.x_content,)  # a gray x has no chroma
    return (_GRAY,) if gray else _CHROMA[plan.task]
