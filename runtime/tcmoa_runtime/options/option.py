"""Documentation of the fields of options classes, and checks that several classes use."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tcmoa_runtime.errors import InputError


@dataclass(frozen=True)
class Option:
    """Documentation of a field: `precision: Annotated[Precision, Option("Precision of the graph.")] = "fp32"`.

    Attributes:
        help: One or two sentences for `--help` and the documentation.
        group: Heading under which the command line lists the option.
        metavar: Placeholder of the value in the command line's help; derived from the type if None.
        is_subject: Whether an error with the field's name as its subject is about this option; not for names such as x,
            which are those of a source too.
    """

    help: str
    group: str | None = None
    metavar: str | None = None
    is_subject: bool = True


def check_choices(options: object) -> None:
    """Check every field whose type is a `Literal`, alone, optional or in a tuple.

    Args:
        options: An instance of a dataclass.

    Raises:
        InputError: A field holds a value that its `Literal` does not list; the subject is the field's name.
    """
    hints = get_type_hints(type(options))
    for field in fields(options):  # type: ignore[arg-type]  # dataclasses have no public protocol
        choices, is_tuple = _choices_of(hints[field.name])
        if not choices:
            continue
        value = getattr(options, field.name)
        if value is None and None.__class__ in get_args(hints[field.name]):
            continue
        for item in value if is_tuple else (value,):
            check_choice(field.name, item, choices)


def check_choice(subject: str, value: object, choices: Collection[object]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{value!r}; expected one of {', '.join(map(str, choices))}", subject=subject)


def format_number(value: float) -> str:
    """Return a number for a message: whole ones below 1e15 with all their digits, others with up to six."""
    if abs(value) < 1e15:
        return f"{value:.0f}" if value == int(value) else f"{value:g}"
    return f"{value:g}" if isinstance(value, float) else f"{Decimal(value):.3g}"  # no float holds 10**400


def check_range(subject: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise InputError unless `low <= value <= high`; NaN is refused."""
    if not low <= value <= high:
        unit = unit and f" {unit}"
        raise InputError(
            f"{format_number(value)}{unit}; expected {format_number(low)} to {format_number(high)}{unit}",
            subject=subject,
        )


def check_minimum(subject: str, value: float, minimum: float) -> None:
    """Raise InputError unless `value` is `minimum` or more; NaN is refused."""
    if not value >= minimum:
        raise InputError(
            f"{format_number(value)}; expected {format_number(minimum)} or more", subject=subject
        )


def check_seconds(subject: str, value: float, minimum: float = 0.0) -> float:
    """Return `value`; raises InputError unless it is a finite number of seconds, `minimum` or more."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < minimum:
        raise InputError(f"{value!r}; expected seconds, {minimum:g} or more", subject=subject)
    return float(value)


def _choices_of(hint: Any) -> tuple[tuple[object, ...], bool]:
    """Return the choices of a type, and whether it is a tuple of them."""
    if get_origin(hint) is Literal:
        return get_args(hint), False
    for part in get_args(hint):
        choices, _ = _choices_of(part)
        if choices:
            return choices, get_origin(hint) is tuple or _choices_of(part)[1]
    return (), False
