"""Imports of the runtime: no heavy package at start, and never a package of training or export."""

import ast
from pathlib import Path

import pytest

import tcmoa_runtime

PACKAGE = Path(tcmoa_runtime.__file__).parent
FORBIDDEN = {"torch", "onnx", "tcmoa", "tcmoa_export"}

EVERY_MODULE = """
import importlib, pkgutil
import tcmoa_runtime
for module in pkgutil.walk_packages(tcmoa_runtime.__path__, "tcmoa_runtime."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_importing_the_package_imports_no_heavy_package(fresh_python):
    heavy = FORBIDDEN | {"onnxruntime", "cv2", "tensorrt", "typer", "rich"}
    outcome = fresh_python(f"import tcmoa_runtime\nprint(sorted(sys.modules.keys() & {heavy!r}))")
    assert (outcome.code, outcome.out, outcome.err) == (0, "[]\n", "")


def test_importing_the_command_line_imports_no_backend(fresh_python):
    heavy = FORBIDDEN | {"onnxruntime", "cv2", "tensorrt"}
    outcome = fresh_python(f"import tcmoa_runtime.cli\nprint(sorted(sys.modules.keys() & {heavy!r}))")
    assert (outcome.code, outcome.out, outcome.err) == (0, "[]\n", "")


def test_the_list_of_commands_imports_no_backend(fresh_python):
    """Help must work where ONNX Runtime is broken: it names the command that says what is wrong."""
    heavy = FORBIDDEN | {"onnxruntime", "tensorrt"}
    outcome = fresh_python(
        f"from tcmoa_runtime.cli import run\nrun(['--help'])\nprint(sorted(sys.modules.keys() & {heavy!r}))"
    )
    assert (outcome.code, outcome.out.splitlines()[-1], outcome.err) == (0, "[]", "")


def test_a_command_imports_no_other_command(fresh_python):
    """Other commands would delay the first frame of `tcmoa fuse`."""
    outcome = fresh_python(
        "from tcmoa_runtime.cli import run\nrun(['fuse', '--help'])\n"
        "print(sorted(n for n in sys.modules if n.startswith(('tcmoa_runtime.cli.', 'tcmoa_runtime.streams'))))"
    )
    shared = ("command_line", "options", "printing", "progress", "version")
    own = ("fuse", "fuse_folder", "fuse_prompt", "fuse_record", "fuse_report")
    assert outcome.out.splitlines()[-1] == str(
        sorted(f"tcmoa_runtime.cli.{name}" for name in (*shared, *own))
    )


def test_every_module_can_be_imported_without_training_and_export(fresh_python):
    outcome = fresh_python(EVERY_MODULE, blocked=FORBIDDEN)
    assert outcome.code == 0, outcome.err
    files = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]
    assert len(outcome.out.splitlines()) == len(files)


def test_blocking_a_package_works(fresh_python):
    """Otherwise the tests that block a package would prove nothing."""
    outcome = fresh_python("import torch", blocked={"torch"})
    assert outcome.code == 1
    assert "No module named 'torch'" in outcome.err


def test_all_is_sorted_complete_and_importable():
    names = tcmoa_runtime.__all__
    assert names == sorted(names)
    assert all(hasattr(tcmoa_runtime, name) for name in names)
    public = {n for n, v in vars(tcmoa_runtime).items() if isinstance(v, type)}
    assert public <= set(names)


def imports_when_loaded(node):
    """Yield the top-level names of packages that a module imports outside of its functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports here are absolute"
            yield child.module.split(".")[0]
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_when_loaded(child)


@pytest.mark.parametrize("path", sorted(PACKAGE.parent.rglob("*.py")), ids=lambda p: p.name)
def test_no_source_file_imports_training_or_export(path):
    imported = set(imports_when_loaded(ast.parse(path.read_text(encoding="utf-8"))))
    assert not imported & FORBIDDEN
