"""The files of the product that use CUDA or TensorRT."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKED_MODULES = frozenset(
    {
        "cuda.bindings.runtime",
        "cuda.bindings.driver",
        "cuda.bindings.nvml",
        "tensorrt",
        "tensorrt_rtx_bindings",
    }
)
"""NVIDIA's modules whose uses are checked, as the product imports them."""

_PACKAGES = ("runtime/tcmoa_runtime", "export/tcmoa_export")
_FOLDERS = {"gpu", "gpu_check", "tensorrt", "engines"}
_MENTIONS = re.compile(r"\bimport_library\b|\bcuda\.bindings\b|\bModuleType\b|gpu import cuda|gpu\.cuda")
_PERHAPS = re.compile(r"\b(import|import_module)\b.*(cuda|tensorrt|pynvml)")
_NVIDIA = re.compile(r"(cuda\.[\w.]+|tensorrt\w*|pynvml)$")


def product_files():
    """Return the paths of all files of the runtime and the exporter by name of their module."""
    found = {}
    for package in map(Path, _PACKAGES):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT / package.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def product_sources():
    """Return those that use CUDA or TensorRT."""
    return {
        name: path
        for name, path in product_files().items()
        if not _FOLDERS.isdisjoint(name.split(".")) or _MENTIONS.search(path.read_text(encoding="utf-8"))
    }


def unchecked_imports(files):
    """Return imports of NVIDIA's modules that no check knows, as `file:line: module`."""
    found = []
    for path in files.values():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if _PERHAPS.search(text) else ():
            for name in _imported(node):
                if _NVIDIA.match(name) and name not in CHECKED_MODULES:
                    found.append(f"{path}:{node.lineno}: {name}")
    return found


def _imported(node):
    """Return the modules that a node imports by statement or by `import_module`, and names of those of CUDA."""
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("cuda.bindings.")
    ):
        return [node.value]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        if node.module in ("cuda", "cuda.bindings"):
            return [f"{node.module}.{alias.name}" for alias in node.names]
        return [node.module]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return []
