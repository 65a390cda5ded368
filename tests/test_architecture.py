"""Rules of the code base that no single test of a module would notice."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "tcmoa": ROOT / "tcmoa",
    "tcmoa_export": ROOT / "export/tcmoa_export",
    "tcmoa_runtime": ROOT / "runtime/tcmoa_runtime",
    "tcmoa_calibration": ROOT / "calibration/tcmoa_calibration",
}
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]


def lint_imports(config):
    """Run import-linter with a configuration file; returns its exit code and output."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", str(config), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=config.parent, check=False)
    return done.returncode, done.stdout + done.stderr


def test_import_contracts_hold():
    code, output = lint_imports(ROOT / "pyproject.toml")
    assert code == 0, output


PLANTS = {
    "the runtime imports the exporter": ("tcmoa_runtime/images.py", "import tcmoa_export"),
    "the model imports the exporter": ("tcmoa/model.py", "import tcmoa_export.folds"),
    "backends import the benchmark": ("tcmoa_runtime/backends/base.py", "import tcmoa_runtime.bench.measure"),
    "the manifest imports the bundle": ("tcmoa_runtime/manifest.py", "import tcmoa_runtime.bundle"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_violation_is_found(plant, tmp_path):
    """The contracts would otherwise pass for nothing."""
    file, line = PLANTS[plant]
    for name, folder in PACKAGES.items():
        (tmp_path / name).mkdir()
        for path in folder.rglob("*.py"):
            target = tmp_path / name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text(encoding="utf-8"))
    planted = tmp_path / file
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    code, output = lint_imports(tmp_path / "pyproject.toml")
    assert code == 1, output
    assert "BROKEN" in output


def strings_of(tree):
    """String constants of a module, except docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_are_spelled_in_the_command_line_only(path):
    """The library says `overwrite=True` (`TcmoaError.settings`), for it does not know who calls. pip has its own."""
    if path.is_relative_to(PACKAGES["tcmoa_runtime"] / "cli"):
        return
    found = [
        (line, text)
        for line, text in strings_of(ast.parse(path.read_text(encoding="utf-8")))
        if re.search(r"(?<![\w-])--[a-z][a-z-]+", text) and not text.startswith("pip install ")
    ]
    assert not found, found


def public_callables(module):
    """Functions, classes' public methods and properties of the names in `__all__`."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for attribute, member in vars(value).items():
                function = (
                    member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                )
                if inspect.isfunction(function) and (not attribute.startswith("_") or attribute in DUNDERS):
                    yield f"{name}.{attribute}", function


def test_openvino_has_one_core_in_a_process():
    """Others would end the process with SIGSEGV, see `_process_core`."""
    folders = (*PACKAGES.values(), ROOT / "benchmarks", ROOT / "examples", ROOT / "docs", ROOT / "tests")
    texts = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for folder in folders
        for path in folder.rglob("*.py")
    }
    found = [name for name, text in texts.items() if re.search(r"\bCore\(\)", text)]
    assert found == ["runtime/tcmoa_runtime/backends/openvino.py"]


def mentions_any(annotation):
    return re.search(r"\bAny\b", str(annotation)) is not None


DUNDERS = {"__init__", "__call__", "__iter__", "__enter__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_signatures_are_typed_without_any(package):
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    wrong = []
    for name, function in public_callables(module):
        hints = {
            key: text
            for key, text in function.__annotations__.items()
            if not (key == "return" and text == "None")
        }
        parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        wrong += [f"{name}: {p} has no type" for p in parameters if p not in hints]
        wrong += [
            f"{name}: {key} is {text}" for key, text in hints.items() if re.search(r"\bAny\b", str(text))
        ]
    assert not wrong, wrong


def test_the_rule_about_any_finds_any():
    for annotation in ("Any", "typing.Any", "dict[str, Any]", "Callable[..., Any] | None"):
        assert mentions_any(annotation)
    for annotation in ("AnyImage", "int", "Mapping[str, object]"):
        assert not mentions_any(annotation)
