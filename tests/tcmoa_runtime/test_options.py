"""Options classes: the values they refuse, and the command line that is built from them."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from tcmoa_runtime import InputError
from tcmoa_runtime.cli.options import TextForm, help_of, parse_number, takes_options
from tcmoa_runtime.options.export import ExportOptions
from tcmoa_runtime.options.option import Option, check_choices, check_range, format_number

Color = Literal["red", "blue"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    size: Annotated[tuple[int, int], Option("Size.")]
    color: Annotated[Color, Option("Color.", group="Looks")] = "red"
    names: Annotated[tuple[Color, ...], Option("Names.")] = ()
    second: Annotated[Color | None, Option("Second color.")] = None
    rate: Annotated[Fraction | None, Option("Rate.")] = None
    limits: Annotated[tuple[float, float], Option("Limits.")] = (1.0, 99.0)
    gain: Annotated[float, Option("Gain.")] = 1.5
    fast: Annotated[bool, Option("Fast.")] = False
    round_up: Annotated[bool, Option("Round up.")] = True
    shift: Annotated[float | Path | None, Option("Shift.", metavar="BETA|FILE")] = None
    internal: int = 3

    def __post_init__(self):
        check_choices(self)
        check_range("gain", self.gain, 0, 2)


SHIFT = TextForm(lambda text: Path(text) if text.endswith(".png") else float(text), str, "BETA|FILE")


def run(*arguments):
    seen = []

    @takes_options(Choices, forms={"shift": SHIFT}, flags={"color": ("--color", "-c")})
    def command(options: Choices, name: str, loud: bool = False):
        """Do something."""
        seen.append((options, name, loud))

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments))
    return result, seen


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**31 - 1, "2147483647"),
        (1e6, "1000000"),
        (-0.5, "-0.5"),
        (1 / 3, "0.333333"),
        (10**400, "1.00e+400"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_of_messages_have_all_their_digits(value, text):
    assert format_number(value) == text


def test_defaults_are_those_of_the_class():
    result, seen = run("--size", "640x480", "me")
    assert result.exit_code == 0, result.output
    assert seen == [(Choices(size=(480, 640)), "me", False)]


def test_text_becomes_typed_values():
    _, seen = run(
        *("--size", "8x4", "me", "--loud", "-c", "blue", "--names", "red, blue", "--second", "red"),
        *("--rate", "30000/1001", "--limits", "2,98.5", "--gain", "0.5", "--fast", "--no-round-up"),
        *("--shift", "a.png"),
    )
    assert seen == [
        (
            Choices(
                size=(4, 8),
                color="blue",
                names=("red", "blue"),
                second="red",
                rate=Fraction(30000, 1001),
                limits=(2, 98.5),
                gain=0.5,
                fast=True,
                round_up=False,
                shift=Path("a.png"),
            ),
            "me",
            True,
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "640"], "--size: '640'; expected WIDTHxHEIGHT, e.g. 640x480"),
        (["--size", "8x4", "--gain", "3"], "--gain: 3; expected 0 to 2"),
        (["--size", "8x4", "--gain", "nan"], "--gain: nan; expected a finite number"),
        (["--size", "8x4", "--names", "red,green"], "--names: 'green'; expected one of red, blue"),
        (["--size", "8x4", "--limits", "5"], "--limits: '5'; expected two percentiles, e.g. 1,99"),
        (["--size", "8x4", "--rate", "x"], "--rate: 'x'; expected frames per second, e.g. 25 or 30000/1001"),
    ],
)
def test_a_wrong_value_names_the_option(arguments, message):
    result, seen = run(*arguments, "me")
    assert not seen
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == message


def test_the_examples_of_a_docstring_become_a_block_of_code():
    def command():
        """Do something.

        More about it.

        Examples:

            tcmoa command one
            tcmoa command two \\
                --option
        """

    code = "tcmoa command one\ntcmoa command two \\\n    --option"
    assert help_of(command) == f"Do something.\n\nMore about it.\n\nExamples:\n\n```sh\n{code}\n```"


def test_a_docstring_without_examples_is_the_help():
    def command():
        """Do something.

        More about it.
        """

    assert help_of(command) == "Do something.\n\nMore about it."
    assert help_of(lambda: None) == ""


def test_help_lists_choices_defaults_and_groups():
    result, _ = run("--help")
    text = " ".join(result.output.split())
    for part in (
        "red|blue",
        "Looks",
        "[default: 1,99]",
        "[default: 1.5]",
        "--no-round-up",
        "WIDTHxHEIGHT",
        "BETA|FILE",
    ):
        assert part in text
    assert "internal" not in text


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"color": "green"}, "color"),
        ({"names": ("red", "green")}, "names"),
        ({"second": "green"}, "second"),
        ({"gain": float("nan")}, "gain"),
    ],
)
def test_the_class_checks_choices_and_ranges(changes, subject):
    with pytest.raises(InputError) as caught:
        Choices(size=(1, 1), **changes)
    assert caught.value.subject == subject


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": "night"}, "task: 'night'; expected one of vif, mef, mff"),
        ({"size": (0, 10)}, "size: 10x0; expected 1x1 to 8192x8192 pixels"),
        ({"batch": 0}, "batch: 0 frames; expected 1 to 64 frames"),
        ({"precision": "int4"}, "precision: 'int4'; expected one of fp32, fp16, bf16"),
        ({"gray": ("z",)}, "gray: 'z'; expected one of x, y"),
        ({"routers": ("vif", "xyz")}, "routers: 'xyz'; expected one of vif, mef, mff"),
    ],
)
def test_wrong_export_options_are_reported_in_one_line(changes, line):
    with pytest.raises(InputError) as caught:
        ExportOptions(**{"task": "vif", "size": (8, 8), **changes})
    assert str(caught.value) == line


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("-0.5", -0.5), (" 2e-3 ", 0.002), (".5", 0.5)])
def test_numbers_are_read_from_text(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["", "one", "1,5", "nan", "inf", "-inf", "1e999", "0x10"])
def test_text_that_is_not_a_finite_number_is_refused(text):
    with pytest.raises(InputError, match=r"; expected a (finite )?number$"):
        parse_number(text)
