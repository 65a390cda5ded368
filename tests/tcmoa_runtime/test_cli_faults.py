"""Exit codes and messages after an internal error, a missing package, or an interrupt."""

import shlex
import warnings

import pytest
import typer

from tcmoa_runtime import Fuser, TcmoaError
from tcmoa_runtime.cli import DEBUG, run
from tcmoa_runtime.install import install_command


@pytest.fixture
def fuse_arguments(vif, sources, tmp_path):
    """Valid arguments of `tcmoa fuse`."""
    return [str(a) for a in ("fuse", vif, *sources, "-o", tmp_path / "out.png")]


@pytest.fixture
def failing(monkeypatch):
    """Function that makes `Fuser.load` raise an error."""

    def fail_with(error):
        def load(*_, **__):
            raise error

        monkeypatch.setattr(Fuser, "load", load)

    return fail_with


@pytest.mark.parametrize(
    ("command", "subject"),
    [
        ("fuse BUNDLE X Y -o ''", "--out"),
        ("bulk BUNDLE X Y --out ''", "--out"),
        ("bulk BUNDLE X Y --out=", "--out"),
        ("bulk BUNDLE '' Y -o out", "argument 3"),
        ("''", "argument 1"),
    ],
)
def test_an_empty_path_is_refused_as_it_would_be_the_current_folder(command, subject, tcmoa):
    outcome = tcmoa(*shlex.split(command))
    outcome.assert_error(2, f"{subject}: ''; expected a value. Check whether a shell variable is empty.")


@pytest.mark.parametrize(
    "error", [RuntimeError("two\nlines"), KeyError("key"), OSError("no path"), AssertionError()]
)
def test_an_internal_error_exits_1_in_one_line(error, tcmoa, fuse_arguments, failing, monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    failing(error)
    outcome = tcmoa(*fuse_arguments)
    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"tcmoa: internal error: {type(error).__name__}")
    assert "Please report it" in line
    assert DEBUG in line


def test_tcmoa_debug_raises_an_internal_error(fuse_arguments, failing, monkeypatch):
    monkeypatch.setenv(DEBUG, "1")
    failing(RuntimeError("boom"))
    with pytest.raises(RuntimeError, match="boom"):
        run(fuse_arguments)


def test_tcmoa_debug_shows_the_messages_of_native_libraries(fresh_python):
    """Without it, stderr has only the lines of the command itself."""
    code = f"""
import os
from tcmoa_runtime import cli
def native(_):
    os.write(2, b"native\\n")
    print("python", file=sys.stderr)
    return 0
cli.run = native
os.environ["{DEBUG}"] = {{value!r}}
cli.main()
"""
    assert fresh_python(code.format(value="")).err == "python\n"
    assert fresh_python(code.format(value="1")).err == "native\npython\n"


def test_a_tcmoa_error_is_not_reported_as_an_internal_error(tcmoa, fuse_arguments, failing):
    failing(TcmoaError("the graph\n failed"))
    tcmoa(*fuse_arguments).assert_error(1, "the graph failed")


def test_a_path_without_permission_is_an_input_error(tcmoa, fuse_arguments, failing):
    failing(PermissionError(13, "Permission denied", "/secret/bundle"))
    tcmoa(*fuse_arguments).assert_error(2, "/secret/bundle: Permission denied")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_exits_130(error, tcmoa, fuse_arguments, failing):
    failing(error)
    outcome = tcmoa(*fuse_arguments)
    assert (outcome.code, outcome.out, outcome.err.strip()) == (130, "", "tcmoa: interrupted")


def test_warnings_are_printed_as_notes_on_stderr(tcmoa, fuse_arguments, monkeypatch):
    load = Fuser.load

    def warn(*arguments, **options):
        warnings.warn("something to know", UserWarning, stacklevel=1)
        return load(*arguments, **options)

    monkeypatch.setattr(Fuser, "load", warn)
    outcome = tcmoa(*fuse_arguments, "--json")
    assert (outcome.code, outcome.err) == (0, "tcmoa: note: something to know\n")
    assert outcome.json["images"] == 1


EXPORT = ["export", "--weights", "tiny", "--task", "vif", "--size", "64x64", "--out", "bundle"]


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (EXPORT, "torch"),
        (EXPORT, "onnx"),
        (["train", "config.toml"], "torch"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(arguments, missing, fresh_python, tmp_path, tree):
    code = f"import os\nos.chdir({str(tmp_path)!r})\nfrom tcmoa_runtime.cli import run\nsys.exit(run({arguments!r}))"
    outcome = fresh_python(code, blocked={missing})
    outcome.assert_error(
        3, f"tcmoa {arguments[0]}: the package {missing} is not installed", install_command("export")
    )
    assert not tree(tmp_path)


def test_a_malformed_size_is_refused_before_anything_is_imported(fresh_python):
    sizes = ("640", "640x", "axb", "-1x5", "1234567x1", "")
    commands = [
        ["export", "--weights", "tiny", "--task", "vif", "--size", size, "--out", "bundle"] for size in sizes
    ]
    code = f"from tcmoa_runtime.cli import run\nprint([run(arguments) for arguments in {commands!r}])"
    outcome = fresh_python(code, blocked={"torch"})
    assert (outcome.code, outcome.out) == (0, f"{[2] * len(sizes)}\n")
    lines = outcome.err.splitlines()
    assert len(lines) == len(sizes)
    for line in lines:
        assert line.startswith("tcmoa: error: ")
        assert "expected WIDTHxHEIGHT, e.g. 640x480" in line


def test_a_group_without_a_command_names_its_help(tcmoa):
    outcome = tcmoa("calibrate")
    assert outcome.code == 2
    line = "tcmoa: error: no command; expected one of those that `tcmoa calibrate --help` lists"
    assert outcome.err.splitlines()[-1] == line


def test_a_misspelled_command_is_a_question_and_a_remedy(tcmoa):
    tcmoa("fuze").assert_error(2, "No such command 'fuze'. Did you mean 'fuse'? See `tcmoa --help`")
