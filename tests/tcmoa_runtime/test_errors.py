"""The exception tree: parts, exit codes, and the builtins that callers may catch instead."""

import pickle

import pytest

from tcmoa_runtime import BundleError, InputError, MissingError, TcmoaError
from tcmoa_runtime.cli.options import spell_for_command_line


@pytest.mark.parametrize(
    ("kind", "code", "builtin"),
    [
        (TcmoaError, 1, Exception),
        (InputError, 2, ValueError),
        (BundleError, 2, ValueError),
        (MissingError, 3, ImportError),
    ],
)
def test_each_error_has_its_exit_code_and_is_the_builtin_it_resembles(kind, code, builtin):
    assert kind.exit_code == code
    assert issubclass(kind, TcmoaError)
    assert issubclass(kind, builtin)


def test_a_bundle_error_is_an_input_error():
    assert issubclass(BundleError, InputError)
    assert not issubclass(MissingError, InputError)


def full_error(kind=InputError):
    return kind(
        "1280x720; expected 640x480",
        subject="night.png",
        remedy="Resize with {resize}, or choose {precision}",
        settings={"resize": True, "precision": "fp16"},
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("no such file"), "no such file"),
        (InputError("no such file", subject="a.png"), "a.png: no such file"),
        (InputError("no such file", remedy="Create it"), "no such file. Create it."),
        (
            InputError("a file; expected a folder.", subject="a", remedy="Run `ls`"),
            "a: a file; expected a folder. Run `ls`",
        ),
        (
            InputError("holds {braces}", subject="a", remedy="Keep {braces}"),
            "a: holds {braces}. Keep {braces}.",
        ),
    ],
)
def test_the_parts_make_one_line(error, line):
    assert str(error) == line


def test_an_option_is_spelled_for_its_reader():
    python = "night.png: 1280x720; expected 640x480. Resize with resize=True, or choose precision='fp16'."
    assert str(full_error()) == python
    shell = "night.png: 1280x720; expected 640x480. Resize with --resize, or choose --precision fp16."
    assert full_error().render(spell_for_command_line) == shell


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("with_prompt", True, "--with-prompt"),
        ("upsample", False, "--no-upsample"),
        ("out", ..., "--out"),
        ("targets", ("sm86", "sm89"), "--targets sm86,sm89"),
        ("tile_overlap", 32, "--tile-overlap 32"),
    ],
)
def test_the_command_line_spells_options_with_dashes(name, value, text):
    assert spell_for_command_line(name, value) == text


@pytest.mark.parametrize("kind", [TcmoaError, InputError, BundleError, MissingError])
def test_parts_survive_pickling_and_a_new_subject(kind):
    """Errors cross the boundary of worker processes."""
    error = full_error(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    renamed = copy.with_subject("--x")
    assert (renamed.subject, renamed.problem, renamed.remedy) == ("--x", error.problem, error.remedy)
    assert error.subject == "night.png"
