"""Signatures of functions in NVIDIA's Python modules.

TensorRT's modules are made with pybind11, which writes signatures, types included, as the first lines of a docstring.
`cuda.bindings` is made with Cython: Python reads the parameters, and the docstring lists the results.
"""

import inspect
import re
import textwrap
from dataclasses import dataclass

_BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}


@dataclass(frozen=True)
class Parameter:
    """A parameter; `type` is the annotation as text, empty if there is none."""

    name: str
    type: str = ""
    is_optional: bool = False
    is_keyword_only: bool = False


@dataclass(frozen=True)
class Signature:
    """One overload of a function.

    Attributes:
        parameters: Its parameters, without `self`.
        results: Types of its results as text: one for pybind11; the error code and others for Cython.
        takes_rest: Whether it takes any further positional arguments.
    """

    parameters: tuple[Parameter, ...]
    results: tuple[str, ...] = ("",)
    takes_rest: bool = False

    def __str__(self):
        parts = [
            p.name + (f": {p.type}" if p.type else "") + (" = ..." if p.is_optional else "")
            for p in self.parameters
        ]
        return f"({', '.join(parts)})"

    def mismatch(self, num_positional, keywords):
        """Return why arguments do not fit by number and name, None if they do."""
        positional = [p for p in self.parameters if not p.is_keyword_only]
        if num_positional > len(positional) and not self.takes_rest:
            return f"takes {len(positional)} positional arguments, not {num_positional}"
        taken = {p.name for p in positional[:num_positional]}
        names = {p.name for p in self.parameters}
        for keyword in keywords:
            if keyword not in names:
                return f"has no parameter {keyword!r}"
            if keyword in taken:
                return f"gets {keyword!r} twice"
        missing = [
            p.name for p in self.parameters if not p.is_optional and p.name not in taken | set(keywords)
        ]
        return f"misses {', '.join(missing)}" if missing else None


def signatures_of(function):
    """Return the overloads of a function; empty if nothing describes it."""
    found = pybind_signatures(function.__doc__ or "", getattr(function, "__name__", ""))
    return found or cython_signatures(function)


def pybind_signatures(text, name):
    """Read the signatures that pybind11 writes into a docstring; `self` is kept, as the first parameter."""
    lines = text.splitlines()
    if not lines or not name:
        return []
    if len(lines) > 1 and lines[1] == "Overloaded function.":
        heads = [line.split(". ", 1)[1] for line in lines if re.match(rf"\d+\. {re.escape(name)}\(", line)]
    else:
        heads = lines[:1]
    return [signature for head in heads if (signature := _parse_head(head, name)) is not None]


def property_type(prop):
    """Return the type that the getter of pybind11's property returns, as text."""
    match = re.search(r"-> (.+)$", (getattr(prop.fget, "__doc__", "") or "").strip().split("\n")[0])
    return match.group(1) if match else ""


def _parse_head(head, name):
    match = re.match(rf"(?:{re.escape(name)})?\((.*)\) -> (.+)$", head)
    if match is None:
        return None
    parameters, keyword_only, rest = [], False, False
    for part in split_parameters(match.group(1)):
        if part == "*":
            keyword_only = True
        elif part.startswith("*"):
            rest = rest or not part.startswith("**")
        elif part != "/":
            declared, equals, _ = part.partition(" = ")
            parameter, colon, kind = declared.partition(": ")
            if not colon:  # Cython's style
                kind, _, parameter = declared.rpartition(" ")
            parameters.append(Parameter(parameter.strip(), kind.strip(), bool(equals), keyword_only))
    return Signature(tuple(parameters), (match.group(2).strip(),), rest)


def split_parameters(text):
    """Split at the commas that are in no bracket."""
    parts, closing, start = [], [], 0
    for i, character in enumerate(text):
        if closing and character == closing[-1]:
            closing.pop()
        elif character in _BRACKETS:
            closing.append(_BRACKETS[character])
        elif character == "," and not closing:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def cython_signatures(function):
    """Read the parameters of a Cython function, and its results from the section `Returns` of its docstring."""
    try:
        declared = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = inspect.Parameter
    parameters = tuple(
        Parameter(p.name, "", p.default is not kinds.empty, p.kind is kinds.KEYWORD_ONLY)
        for p in declared
        if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    )
    rest = any(p.kind is kinds.VAR_POSITIONAL for p in declared)
    return [Signature(parameters, _documented_results(function.__doc__ or ""), rest)]


def _documented_results(text):
    """Return the results' types: the least indented lines below `Returns`, up to the next section."""
    match = re.search(
        r"^\s*Returns\n\s*-+\n(.*?)(?=^\s*\S[^\n]*\n\s*-+\n|\Z)", text + "\n", re.MULTILINE | re.DOTALL
    )
    if match is None:  # the style of cuda.bindings.nvml
        match = re.search(r"^\s*Returns:\n\s+(\w+): ", text, re.MULTILINE)
        return (match.group(1) if match else "",)
    rows = [row for row in textwrap.dedent(match.group(1)).splitlines() if row and not row[0].isspace()]
    return tuple(re.sub(r":py:obj:`~?\.?([^`]+)`", r"\1", row.rpartition(" : ")[2]) for row in rows)
