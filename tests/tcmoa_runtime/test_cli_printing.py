"""What the command line prints: control characters are escaped, and a stdout that cannot be written is one error."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tcmoa_runtime import cli
from tcmoa_runtime.cli import progress
from tcmoa_runtime.cli.printing import one_line, print_line, print_message, printable

HOSTILE = {
    "an escape sequence": ("a\x1b[2Jb", "a\\x1b[2Jb"),
    "C1": ("a\x9b31mb\x85", "a\\x9b31mb\\x85"),
    "a bell and a backspace": ("a\x07\x08", "a\\x07\\x08"),
    "DEL and NUL": ("\x7f\x00", "\\x7f\\x00"),
    "direction of text": ("a\u202egnp.exe\u2066\u200f", "a\\u202egnp.exe\\u2066\\u200f"),
    "separators": ("a\u2028b\u2029", "a\\u2028b\\u2029"),
    "bytes that are not UTF-8": ("a\udcff", "a\\udcff"),
    "a line break": ("a\nb\r", "a\\nb\\r"),
    "ordinary text": ("\tcaf\u00e9 \u65e5\u672c [b]:smile:", "\tcaf\u00e9 \u65e5\u672c [b]:smile:"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_control_characters_are_shown_escaped(case, capsys):
    text, expected = HOSTILE[case]
    assert printable(text) == expected
    print_line(text)
    print_message(text)
    out, err = capsys.readouterr()
    assert out == f"{expected}\n"
    assert err.expandtabs() == f"{expected}\n".expandtabs()


def test_one_line_joins_lines_before_it_escapes():
    assert one_line("a\n b\x1b[1m") == "a b\\x1b[1m"


@pytest.mark.parametrize(
    ("name", "shown"), [("a\x1b]0;title\x07.png", "a\\x1b]0;title\\x07.png"), ("\u202egnp", "\\u202egnp")]
)
def test_a_file_name_in_an_error_is_shown_escaped(name, shown, tcmoa, vif, sources, tmp_path):
    outcome = tcmoa("fuse", vif, sources[0], tmp_path / name, "-o", tmp_path / "o.png")
    outcome.assert_error(2)
    assert outcome.err == f"tcmoa: error: {tmp_path}/{shown}: no such image file\n"


def test_an_unknown_option_is_shown_escaped(tcmoa):
    outcome = tcmoa("doctor", "--\x1b[31m")
    outcome.assert_error(2, "--\\x1b[31m")
    assert "\x1b" not in outcome.err


def test_commands_print_in_one_place_only():
    """Another call of `print` or `console.print` would print names unescaped."""
    allowed = {"printing.py", "__init__.py"}
    found = []
    for path in Path(cli.__file__).parent.rglob("*.py"):
        if path.name in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{path.name}:{node.lineno}")
    assert not found


@pytest.mark.parametrize("arguments", [["doctor", "--json"], ["--version"], ["fuse", "--help"]])
def test_a_full_stdout_is_one_error(arguments):
    command = [Path(sys.executable).with_name("tcmoa"), *arguments]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr in (
        "tcmoa: error: standard output: cannot be written: No space left on device\n",
        "tcmoa: error: output cannot be written: No space left on device\n",
    )


def test_a_reader_that_has_ended_is_no_error():
    command = [Path(sys.executable).with_name("tcmoa"), "doctor", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


def test_progress_without_a_terminal_is_a_line_every_few_seconds(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress, "LINE_SECONDS", 5.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bar("fusing", 4000) as advance:
        for _ in range(40):
            now += 1.0
            advance(100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["fusing: 500 of 4000, 0:35 left", "fusing: 1000 of 4000, 0:30 left"]
    assert len(lines) == 7
