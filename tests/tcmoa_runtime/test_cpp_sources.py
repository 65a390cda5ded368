"""The C and C++ sources: include circles, layers, and the documentation of the public header."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

CPP = Path(__file__).resolve().parents[2] / "runtime" / "cpp"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
SUFFIXES = {".c", ".cpp", ".h", ".hpp"}

Graph = dict[str, set[str]]


def read_sources(folder: Path) -> dict[str, str]:
    """Return the text of each source file of a folder by name."""
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES}


def included_modules(sources: Mapping[str, str]) -> Graph:
    """Return which module includes which. A module is a header and the source file of the same name."""
    modules = {Path(name).stem for name in sources}
    graph: Graph = {module: set() for module in sorted(modules)}
    for name, text in sources.items():
        module = Path(name).stem
        included = {Path(path).stem for path in INCLUDE.findall(text)}
        graph[module] |= (included & modules) - {module}
    return graph


def find_circle(graph: Graph) -> list[str]:
    """Return the modules of a circle, the first one repeated at the end; empty where there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for included in sorted(graph[module]):
            if circle := visit(included, [*path, module]):
                return circle
        done.add(module)
        return []

    for module in graph:
        if circle := visit(module, []):
            return circle
    return []


def foreign_includes(sources: Mapping[str, str], others: Iterable[str]) -> list[str]:
    """Return the includes of files of another folder, or by a path out of this one."""
    others = set(others) - set(sources)
    return [
        f"{name}: {path}"
        for name, text in sources.items()
        for path in INCLUDE.findall(text)
        if ".." in path or Path(path).name in others
    ]


@pytest.mark.parametrize("folder", ["src", "gst"])
def test_modules_do_not_include_each_other_in_a_circle(folder):
    graph = included_modules(read_sources(CPP / folder))
    assert len(graph) > 10
    assert sum(map(len, graph.values())) > len(graph)
    assert find_circle(graph) == []


def test_a_circle_is_found_also_between_a_source_file_and_a_header():
    assert find_circle(
        included_modules({"a.hpp": '#include "b.hpp"', "b.hpp": "", "b.cpp": '#include "a.hpp"'})
    )
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_library_and_the_element_do_not_include_files_of_each_other():
    library, element = read_sources(CPP / "src"), read_sources(CPP / "gst")
    assert foreign_includes(library, element) == []
    assert foreign_includes(element, library) == []
    assert foreign_includes({"a.cpp": '#include "pad.hpp"\n#include "../gst/b.hpp"'}, ["pad.hpp"]) == [
        "a.cpp: pad.hpp",
        "a.cpp: ../gst/b.hpp",
    ]


HEADER = (CPP / "include" / "tcmoa.h").read_text()
FUNCTION = re.compile(
    r"/\*\*(?P<comment>(?:(?!\*/).)*)\*/\nTCMOA_API (?P<result>.*?)(?P<name>tcmoa_\w+)\((?P<parameters>.*?)\);",
    re.DOTALL,
)


@pytest.mark.parametrize("name", re.findall(r"^TCMOA_API .*?(tcmoa_\w+)\(", HEADER, re.MULTILINE))
def test_every_function_of_the_header_documents_its_parameters_and_its_result(name):
    function = next(match for match in FUNCTION.finditer(HEADER) if match["name"] == name)
    declared = [] if function["parameters"] == "void" else re.findall(r"(\w+)(?:,|$)", function["parameters"])
    assert re.findall(r"@param (\w+) ", function["comment"]) == declared
    assert ("@return " in function["comment"]) == (function["result"].strip() != "void")


def test_every_type_field_and_constant_of_the_header_has_a_comment_directly_before_it():
    declaration = re.compile(
        r"^(?:typedef |#define TCMOA_VERSION_|    (?:TCMOA_\w+ =|(?:const )?\w+ \*?\w+(?:\[\d\])?;))"
    )
    lines = HEADER.splitlines()
    declared = [i for i, line in enumerate(lines) if declaration.match(line)]
    assert len(declared) > 70
    assert [lines[i] for i in declared if not lines[i - 1].endswith("*/")] == []
