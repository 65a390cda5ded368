"""Command-line options from options classes, and parsing of their text.

`takes_options` gives a command one parameter for each field of an options class, so that an option is described once.
Only this package parses text and spells options with dashes.
"""

from __future__ import annotations

import inspect
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.option import Option

BundleArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder of the bundle, or the name of a ready one, see `tcmoa models`.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]

OptionsT = TypeVar("OptionsT")
Command = Callable[..., Any]


@dataclass(frozen=True)
class TextForm:
    """A type that is written as text: how to parse it, how to show a default, and its placeholder in help."""

    parse: Callable[[str], object]
    format: Callable[[Any], str]
    metavar: str


def flag_of(name: str) -> str:
    """Spell the name of a field as an option, e.g. `with_prompt` as `--with-prompt`."""
    return f"--{name.replace('_', '-')}"


def given_options(context: typer.Context, options_class: type[Any]) -> tuple[str, ...]:
    """Return the fields of an options class that were given on the command line, also with their defaults."""
    sources = {field.name: context.get_parameter_source(field.name) for field in fields(options_class)}
    return tuple(
        name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"
    )


def help_of(command: Command) -> str:
    """Return the docstring of a command for its help, with the block of examples fenced.

    typer removes the indentation that marks code in Markdown.
    """
    text = inspect.cleandoc(command.__doc__ or "")
    prose, mark, examples = text.partition("Examples:\n")
    if not mark:
        return text
    return f"{prose}Examples:\n\n```sh\n{inspect.cleandoc(examples).strip()}\n```"


def spell_for_command_line(name: str, value: object) -> str:
    """Spell an option and its value, e.g. `("precision", "fp16")` as `--precision fp16`."""
    if value is False:
        return flag_of(f"no_{name}")
    if value is True or value is ...:
        return flag_of(name)
    items = value if isinstance(value, tuple | list) else (value,)
    return f"{flag_of(name)} {shlex.quote(','.join(map(str, items)))}"


def parse_size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT into (height, width)."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if match is None:
        raise InputError(f"{text!r}; expected WIDTHxHEIGHT, e.g. 640x480")
    return int(match[2]), int(match[1])


def parse_number(text: str) -> float:
    """Parse a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{text!r}; expected a number") from None
    if not math.isfinite(value):
        raise InputError(f"{text}; expected a finite number")
    return value


def parse_percentiles(text: str) -> tuple[float, float]:
    """Parse LOW,HIGH."""
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(f"{text!r}; expected two percentiles, e.g. 1,99")
    return parse_number(parts[0]), parse_number(parts[1])


def parse_names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas; an empty text gives no names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_rate(text: str) -> Fraction:
    """Parse frames per second, as a number or a fraction."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{text!r}; expected frames per second, e.g. 25 or 30000/1001") from None
    return value


def _format_percentiles(value: tuple[float, float]) -> str:
    return f"{value[0]:g},{value[1]:g}"


def _format_size(value: tuple[int, int]) -> str:
    return f"{value[1]}x{value[0]}"


NAMES = TextForm(parse_names, ", ".join, "NAMES")
NUMBER = TextForm(parse_number, lambda value: f"{value:g}", "NUMBER")
TEXT_FORMS: Mapping[object, TextForm] = {
    tuple[int, int]: TextForm(parse_size, _format_size, "WIDTHxHEIGHT"),
    tuple[float, float]: TextForm(parse_percentiles, _format_percentiles, "LOW,HIGH"),
    float: NUMBER,
    Fraction: TextForm(parse_rate, str, "FPS"),
}
"""Types that typer does not parse, or for which it has other error messages."""


@dataclass(frozen=True)
class _Parameter:
    """A field as a parameter of a command."""

    field: Field[Any]
    hint: Any
    option: Option
    decls: tuple[str, ...]
    form: TextForm | None
    is_argument: bool

    @property
    def flag(self) -> str:
        """Name of the parameter in error messages."""
        return self.field.name if self.is_argument else self.decls[0].split("/")[0]

    @property
    def default(self) -> Any:
        """The default of the field, or `inspect.Parameter.empty`."""
        if self.field.default is not MISSING:
            return self.field.default
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return inspect.Parameter.empty

    def to_inspect(self) -> inspect.Parameter:
        """Return the parameter in the form that typer reads."""
        default, hint = self.default, self.hint
        show_default = default is not None and default not in ((), [])
        metavar = self.option.metavar
        if self.form is not None:
            metavar = metavar or self.form.metavar
            hint = str
            if default is not inspect.Parameter.empty:
                hint = str | None
                default = self.form.format(default) if show_default else None
        help_text, group = self.option.help, self.option.group
        info: Any
        if self.is_argument:
            info = typer.Argument(help=help_text, metavar=metavar, show_default=show_default)
        else:
            info = typer.Option(
                *self.decls,
                help=help_text,
                metavar=metavar,
                show_default=show_default,
                rich_help_panel=group,
            )
        return inspect.Parameter(
            self.field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[hint, info],
        )

    def value_of(self, given: Any) -> Any:
        """Convert the value from typer to the value of the field."""
        if self.form is None or given is None:
            return given
        try:
            return self.form.parse(given)
        except InputError as error:
            raise error.with_subject(self.flag) from error


def takes_options(
    options_class: type[OptionsT],
    *,
    name: str = "options",
    flags: Mapping[str, Sequence[str]] | None = None,
    arguments: Sequence[str] = (),
    forms: Mapping[str, TextForm] | None = None,
) -> Callable[[Command], Command]:
    """Give a command one option for each documented field, in place of the parameter `options: OptionsT`.

    Decorate a command that takes several options classes once for each of them.

    Args:
        options_class: The dataclass; fields without an `Option` stay at their default.
        name: Name of the command's parameter for the options.
        flags: Flags of fields whose flag is not just their name, e.g. `{"out": ("--out", "-o")}`.
        arguments: Fields that are positional arguments.
        forms: Text forms of fields whose type does not determine the form.
    """
    parameters = _parameters(options_class, flags or {}, arguments, forms or {})

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
            if parameter.name != name
        ]

        def run(**values: Any) -> Any:
            chosen: dict[str, Any] = {}
            for parameter in parameters:
                value = parameter.value_of(values.pop(parameter.field.name))
                if value is not None or parameter.form is None:
                    chosen[parameter.field.name] = value
            try:
                return command(**{name: options_class(**chosen)}, **values)
            except InputError as error:  # about a field, also where the library finds it later
                named = (p for p in parameters if p.option.is_subject and p.field.name == error.subject)
                flag = next((p.flag for p in named), None)
                if flag is None:
                    raise
                raise error.with_subject(flag) from error

        shown = [*own, *(parameter.to_inspect() for parameter in parameters)]
        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # read by inspect and typer
        return run

    return decorate


def _parameters(
    options_class: type[Any],
    flags: Mapping[str, Sequence[str]],
    arguments: Sequence[str],
    forms: Mapping[str, TextForm],
) -> list[_Parameter]:
    hints = get_type_hints(options_class, include_extras=True)
    found = []
    for field in fields(options_class):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        kind, *notes = get_args(hint)
        option = next((note for note in notes if isinstance(note, Option)), None)
        if option is None:
            continue
        decls = tuple(flags.get(field.name, ())) or _decls(field, kind)
        form = forms.get(field.name) or _form_of(kind)
        found.append(_Parameter(field, kind, option, decls, form, field.name in arguments))
    return found


def _decls(field: Field[Any], kind: Any) -> tuple[str, ...]:
    flag = flag_of(field.name)
    if kind is bool and field.default is False:
        return (flag,)
    if kind is bool or kind == bool | None:
        return (f"{flag}/{flag_of('no_' + field.name)}",)
    return (flag,)


def _form_of(kind: Any) -> TextForm | None:
    """Return the text form of a type; None if typer parses the type."""
    if get_origin(kind) in (Union, UnionType):
        inner = [part for part in get_args(kind) if part is not NoneType]
        return _form_of(inner[0]) if len(inner) == 1 else None
    if kind in TEXT_FORMS:
        return TEXT_FORMS[kind]
    if get_origin(kind) is tuple and get_args(kind)[-1] is ...:
        return NAMES
    return None
