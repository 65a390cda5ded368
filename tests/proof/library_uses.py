"""Uses of NVIDIA's module: attributes and calls, compared with the real ones, and what is reported of them."""

import ast
import contextlib
import enum
from dataclasses import dataclass, field
from pathlib import Path

from proof.signatures import property_type, signatures_of
from proof.values import (
    UNKNOWN,
    Constant,
    Instance,
    Method,
    OwnInstance,
    Real,
    Sequence,
)


@dataclass(frozen=True, order=True)
class Finding:
    """A use that does not fit."""

    file: str
    line: int
    text: str

    def __str__(self):
        return f"{self.file}:{self.line}: {self.text}"


@dataclass
class Report:
    """What was checked.

    Attributes:
        findings: Uses that do not fit the module.
        uses: Places that use it: file, line, what.
        optional: Names that the product looks up with `hasattr` or a default, and that the module lacks.
    """

    findings: set = field(default_factory=set)
    uses: set = field(default_factory=set)
    optional: set = field(default_factory=set)


class LibraryUses:
    """Checks single uses.

    Attributes:
        library: The real module.
        flavor: See `check_calls`.
        report: What was checked.
    """

    def _call_real(self, declared, name, positional, keywords, is_known, scope, node):
        """Check a call of the library; `positional` starts with None where `self` is bound."""
        self._use(scope, node, f"{name}()")
        overloads = signatures_of(declared)
        if not overloads:
            return UNKNOWN
        reasons, fitting = [], []
        for overload in overloads:
            is_method = bool(overload.parameters) and overload.parameters[0].name in ("self", "arg0")
            given = positional if is_method or not positional or positional[0] is not None else positional[1:]
            reason = overload.mismatch(len(given), keywords) if is_known else None
            reason = reason or self._type_mismatch(overload, given, keywords)
            (reasons.append(f"{overload} {reason}") if reason else fitting.append(overload))
        if not fitting:
            self._find(scope, node, f"{name}: {'; '.join(reasons)}")
            return UNKNOWN
        found = UNKNOWN
        for overload in fitting:
            if len(overload.results) > 1:
                found |= {Sequence(tuple(self._typed(text) for text in overload.results))}
            elif _is_list_of_results(overload):
                found |= {Sequence((self._typed(overload.results[0]),))}
            else:
                found |= self._typed(overload.results[0])
        return found

    def _type_mismatch(self, overload, positional, keywords):
        by_name = {p.name: p for p in overload.parameters}
        pairs = [*zip(overload.parameters, positional, strict=False)]
        pairs += [(by_name[name], value) for name, value in keywords.items() if name in by_name]
        for parameter, value in pairs:
            if value is not None and not self._type_fits(parameter.type, value):
                return f"gets {self._describe(value)} as {parameter.name!r}"
        return None

    def _type_fits(self, text, value):
        """Return False if nothing that a value can be is an instance of the library's class that `text` names."""
        expected = self._class_named(text)
        return expected is None or not value or any(self._is_instance(each, expected) for each in value)

    def _is_instance(self, each, expected):
        if isinstance(each, Instance):
            classes = [each.cls]
        elif isinstance(each, OwnInstance):
            classes = self._real_bases(each.cls)
            if not classes:
                return self._is_open(each)
        elif isinstance(each, Real) and not isinstance(each.value, type):
            classes = [type(each.value)]
        else:
            return not isinstance(each, Constant) or each.value is None
        return any(issubclass(cls, expected) for cls in classes)

    def _is_open(self, instance):
        """Whether nothing is known of a base class."""
        return bool(instance.cls.node.bases)

    def _class_named(self, text):
        name = text.replace("::", ".").rpartition(".")[2]
        if name.startswith("nvml"):  # NVML's name in C, e.g. nvmlProcessInfo_t
            name = name.removeprefix("nvml").removesuffix("_t")
        cls = getattr(self.library, name, None) if name.isidentifier() else None
        return cls if isinstance(cls, type) else self._nested_class(text)

    def _nested_class(self, text):
        """Find e.g. `tensorrt.tensorrt.ILogger.Severity`."""
        parts = text.split(".")
        for start in range(len(parts) - 1):
            value = self.library
            with contextlib.suppress(AttributeError):
                for part in parts[start:]:
                    value = getattr(value, part)
                if isinstance(value, type):
                    return value
        return None

    def _typed(self, text):
        cls = self._class_named(text)
        return UNKNOWN if cls is None else frozenset({Instance(cls)})

    def _is_root_attribute(self, name):
        return self.flavor is not None and name in ("library", "_library")

    def _root(self):
        return frozenset({Real(self.library, self.library.__name__)})

    def _attribute_of_instance(self, cls, name, scope, node):
        self._use(scope, node, f"{cls.__name__}.{name}")
        if not has_name(cls, name):
            self._find(scope, node, f"{self._title(cls)} has no {name!r}")
            return UNKNOWN
        declared = getattr(cls, name, None)
        if isinstance(declared, property):
            return self._typed(property_type(declared))
        if callable(declared) and not isinstance(declared, type):
            return frozenset({Method(cls, name)})
        return UNKNOWN

    def _title(self, value):
        name = getattr(value, "__name__", str(value))
        return name if value is self.library else f"{self.library.__name__}.{name}"

    def _describe(self, value):
        names = []
        for each in value:
            cls = each.cls if isinstance(each, (Instance, OwnInstance)) else None
            if isinstance(each, OwnInstance):
                names.append(each.cls.node.name)
            elif cls is not None:
                names.append(cls.__name__)
            else:
                names.append(each.name if isinstance(each, Real) else repr(getattr(each, "value", each)))
        return " or ".join(sorted(names))

    def _use(self, scope, node, text):
        self.report.uses.add((str(self.files[scope.module]), node.lineno, text))

    def _find(self, scope, node, text):
        if self.sites:
            module, line = self.sites[-1]
            text += f" (called by {self.files[module].name}:{line})"
        self.report.findings.add(Finding(str(self.files[scope.module]), node.lineno, text))

    def _unresolved(self, scope, node):
        self.unresolved_names[(scope.module, node.lineno, node.col_offset)] = node

    def _report_unresolved(self):
        """Report names that only the library has, on objects of which nothing is known."""
        own = {
            n.name if isinstance(n, (ast.FunctionDef, ast.ClassDef)) else n.attr
            for tree in self.trees.values()
            for n in ast.walk(tree)
            if isinstance(n, (ast.FunctionDef, ast.ClassDef))
            or (isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
        } | {
            n.target.id
            for t in self.trees.values()
            for n in ast.walk(t)
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
        surface = _surface(self.library) - own
        for place, node in self.unresolved_names.items():
            if place not in self.resolved_names and node.attr in surface:
                module, line, _ = place
                self.report.findings.add(
                    Finding(
                        str(self.files[module]),
                        line,
                        f"{ast.unparse(node)}: it is not known what this is called on",
                    )
                )


def has_name(value, name):
    """Whether an object has an attribute; `name` and `value` of an enum are attributes of its members only."""
    is_enum = isinstance(value, type) and issubclass(value, enum.Enum)
    return hasattr(value, name) or (is_enum and name in ("name", "value"))


def all_names(library):
    """Return the names of a module and of its classes."""
    return set(dir(library)).union(
        *(dir(value) for value in vars(library).values() if isinstance(value, type))
    )


def _surface(library):
    """Names that only the library's objects have."""
    names = all_names(library)
    common = set()
    for kind in (object, str, bytes, list, dict, set, int, type, Path):
        common |= set(dir(kind))
    return {
        name
        for name in names - common
        if not name.startswith("_") and ("_" in name or (name[:1].islower() and name != name.lower()))
    }


def _is_list_of_results(overload):
    """Whether a Cython function returns a tuple with the error code alone."""
    return overload.results == ("cudaError_t",)
