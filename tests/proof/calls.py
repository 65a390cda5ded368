"""Every use of NVIDIA's modules in the product's source, checked against a real module.

The source is interpreted abstractly: calls of the product's own functions are followed with what is known of their
arguments, so `_call("cudaMalloc", nbytes)` reaches `cudaMalloc(nbytes)`. What a library's function returns is read from
its signature. Uses are found, not listed, so a new one is checked without an entry here.
"""

import ast
import inspect
import re
from pathlib import Path

from proof.expressions import Expressions, has_decorator
from proof.library_uses import Finding, Report, all_names
from proof.signatures import pybind_signatures
from proof.values import (
    UNKNOWN,
    Instance,
    Other,
    OwnClass,
    OwnFunction,
    OwnInstance,
    OwnModule,
    Real,
    Scope,
    Sequence,
)

_MAX_DEPTH = 10
_MAX_ROUNDS = 6
"""Attributes of objects are learned in one round and used in the next, until none is new."""
_SPELLED = {
    "cuda.bindings.runtime": re.compile(r"cuda[A-Z]\w*"),
    "cuda.bindings.driver": re.compile(r"cu[A-Z]\w*|CUDA_[A-Z_]+"),
}
"""Names of each module as the product spells them in strings."""
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def check_calls(sources, library, *, flavor=None, choices=None):
    """Check the uses of a module.

    Args:
        sources: The product's files: paths by name of their module.
        library: The real module.
        flavor: `tensorrt` or `rtx`: branches of the other one are left out; None for CUDA.
        choices: Names that the product looks up by a computed name, by class of the library.
    """
    return _Program(sources, library, flavor, choices or {}).run()


class _Program(Expressions):
    def __init__(self, sources, library, flavor, choices):
        self.library, self.flavor, self.choices = library, flavor, choices
        self.root_name = "library" if flavor is not None else library.__name__.rpartition(".")[2]
        self.files = {name: Path(path) for name, path in sources.items()}
        self.trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()}
        self.scopes = {}
        self.attributes = {}  # (class node, attribute) -> what it can be
        self.report = Report()
        self.resolved_names, self.unresolved_names = set(), {}
        self.reached_dynamic, self.unreached_dynamic = set(), set()
        self.stack, self.sites = [], []
        self.calls_in_round = {}

    def run(self):
        for _ in range(_MAX_ROUNDS):
            before = (dict(self.attributes), len(self.report.uses))
            self.calls_in_round = {}
            self.scopes = {name: Scope(name) for name in self.trees}
            for name, tree in self.trees.items():
                self._define(tree.body, self.scopes[name])
            for name, tree in self.trees.items():
                self._block(tree.body, self.scopes[name], set())
            for name, tree in self.trees.items():
                self._enter_all(tree.body, self.scopes[name])
            if before == (self.attributes, len(self.report.uses)):
                break
        self._report_unresolved()
        self._check_spelled_names()
        for file, line, text in self.unreached_dynamic - self.reached_dynamic:
            self.report.findings.add(
                Finding(file, line, f"{text}: the names are not known; add them to the proof")
            )
        return self.report

    def _check_spelled_names(self):
        """Check CUDA's names in strings, in files that import it: each exists, and each function is called."""
        pattern = _SPELLED.get(self.library.__name__)
        if pattern is None:
            return
        known = all_names(self.library)
        used = {text.removesuffix("()").rpartition(".")[2] for _, _, text in self.report.uses}
        for module, tree in self.trees.items():
            texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            if all(node.value != self.library.__name__ for node in texts):
                continue
            for node in texts:
                if not pattern.fullmatch(node.value):
                    continue
                if node.value not in known:
                    self._find(self.scopes[module], node, f"{self.library.__name__} has no {node.value!r}")
                elif inspect.isroutine(getattr(self.library, node.value, None)) and node.value not in used:
                    self._find(self.scopes[module], node, f"{node.value!r}: no call of it was found")

    # Definitions

    def _define(self, body, scope):
        """Bind the classes and functions of a module before any is used."""
        for node in body:
            if isinstance(node, ast.FunctionDef):
                scope.names[node.name] = frozenset({OwnFunction(node, scope)})
            elif isinstance(node, ast.ClassDef):
                scope.names[node.name] = frozenset({OwnClass(node, scope, ())})

    def _enter_all(self, body, scope):
        """Interpret every function with unknown arguments, so that none is left out."""
        for node in body:
            if isinstance(node, ast.FunctionDef):
                self._enter(OwnFunction(node, scope))
            elif isinstance(node, ast.ClassDef):
                for own in scope.names.get(node.name, ()):
                    if isinstance(own, OwnClass):
                        self._enter_methods(own)

    def _enter_methods(self, own):
        for cls in self._mro(own):
            for node in cls.node.body:
                if isinstance(node, ast.FunctionDef):  # an overridden one too: `super()` calls it
                    self._enter(OwnFunction(node, cls.scope, OwnInstance(own)))
                    if cls is own:
                        self._check_override(own, node)

    def _enter(self, function):
        names = [a.arg for a in function.node.args.args]
        given = 1 if function.owner is not None and not _is_static(function.node) else 0
        self._interpret(function, [UNKNOWN] * (len(names) - given), {}, has_unknown=True)

    def _mro(self, own):
        result = [own]
        for base in own.bases:
            if isinstance(base, OwnClass):
                result += [cls for cls in self._mro(base) if cls not in result]
        return result

    def _real_bases(self, own):
        return [
            b.value
            for cls in self._mro(own)
            for b in cls.bases
            if isinstance(b, Real) and isinstance(b.value, type)
        ]

    def _check_override(self, own, node):
        """A method that the library calls must take the arguments that it passes."""
        for base in self._real_bases(own):
            overridden = getattr(base, node.name, None)
            if overridden is None or node.name.startswith("__"):
                continue
            self._use(own.scope, node, f"{base.__name__}.{node.name} overridden")
            declared = pybind_signatures(overridden.__doc__ or "", node.name)
            takes = len(node.args.args) - 1
            expected = [len(signature.parameters) - 1 for signature in declared]
            if expected and takes not in expected:
                self._find(
                    own.scope,
                    node,
                    f"{own.node.name}.{node.name} takes {takes} arguments; "
                    f"{base.__name__}.{node.name} is called with {expected[0]}",
                )

    # Functions

    def _interpret(self, function, positional, keywords, has_unknown=False):
        """Return what a function of the product returns, for arguments."""
        node = function.node
        key = (function, tuple(positional), tuple(sorted(keywords.items())))
        if key in self.calls_in_round:
            return self.calls_in_round[key]
        if len(self.stack) >= _MAX_DEPTH or any(f.node is node for f in self.stack):
            return UNKNOWN
        self.calls_in_round[key] = UNKNOWN
        scope = Scope(function.scope.module, outer=function.scope)
        self._bind(function, positional, keywords, scope, has_unknown)
        returned = set()
        self.stack.append(function)
        try:
            if isinstance(node, ast.Lambda):
                returned |= self._eval(node.body, scope)
            else:
                self._block(node.body, scope, returned)
        finally:
            self.stack.pop()
        result = frozenset(returned)
        self.calls_in_round[key] = result
        return result

    def _bind(self, function, positional, keywords, scope, has_unknown):
        args = function.node.args
        names = [*args.posonlyargs, *args.args]
        values = list(positional)
        if function.owner is not None and not _is_static(function.node):
            owner = function.owner
            if has_decorator(function.node, "classmethod") and isinstance(owner, OwnInstance):
                owner = owner.cls
            values.insert(0, frozenset({owner}))
        for i, name in enumerate(names):
            value = values[i] if i < len(values) else keywords.get(name.arg, UNKNOWN)
            scope.names[name.arg] = value or self._annotated(name, function.scope)
        for name in args.kwonlyargs:
            scope.names[name.arg] = keywords.get(name.arg, UNKNOWN) or self._annotated(name, function.scope)
        if args.vararg is not None:
            rest = UNKNOWN if has_unknown else frozenset({Sequence(tuple(values[len(names) :]))})
            scope.names[args.vararg.arg] = rest

    def _annotated(self, name, scope):
        """Return what a parameter of unknown value can be by its annotation, or by its name."""
        if not self._annotation_is_open(name):
            found = set()
            for part in ast.walk(name.annotation):
                for value in self._lookup(part.id, scope) if isinstance(part, ast.Name) else ():
                    if isinstance(value, OwnClass):
                        found.add(self._described_by(value) or OwnInstance(value))
                    elif isinstance(value, Other):
                        found.add(value)
            if found:
                return frozenset(found)
        if name.arg == self.root_name and self._annotation_is_open(name):
            return self._root()
        return UNKNOWN

    def _annotation_is_open(self, name):
        text = "" if name.annotation is None else ast.unparse(name.annotation)
        return text in ("", "Any", "ModuleType")

    def _described_by(self, own):
        """Return the library's class that a protocol describes, which its docstring names."""
        if not any(ast.unparse(base).split("[")[0].endswith("Protocol") for base in own.node.bases):
            return None
        for word in (ast.get_docstring(own.node) or "").split("`"):
            cls = getattr(self.library, word, None) if word.isidentifier() else None
            if isinstance(cls, type):
                return Instance(cls)
        return None

    # Statements

    def _block(self, body, scope, returned):
        """Interpret statements; returns whether the end is never reached."""
        return any(self._statement(node, scope, returned) for node in body)

    def _statement(self, node, scope, returned):
        if isinstance(node, ast.Return):
            if node.value is not None:
                returned |= self._eval(node.value, scope)
        elif isinstance(node, ast.Assign):
            value = self._eval(node.value, scope)
            for target in node.targets:
                self._assign(target, value, scope)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assign(node.target, self._eval(node.value, scope), scope)
        elif isinstance(node, ast.AugAssign):
            self._eval(node.value, scope)
        elif isinstance(node, ast.Expr):
            value = self._eval(node.value, scope)
            if isinstance(node.value, ast.Yield):
                returned |= self._eval(node.value.value, scope) if node.value.value else value
        elif isinstance(node, ast.If):
            return self._if(node, scope, returned)
        elif isinstance(node, ast.For):
            self._assign(node.target, self._elements(self._eval(node.iter, scope)), scope)
            self._block(node.body, scope, returned)
            self._block(node.orelse, scope, returned)
        elif isinstance(node, ast.While):
            self._eval(node.test, scope)
            self._block(node.body, scope, returned)
        elif isinstance(node, ast.With):
            for item in node.items:
                value = self._eval(item.context_expr, scope)
                if item.optional_vars is not None:
                    self._assign(item.optional_vars, value, scope)
            return self._block(node.body, scope, returned)
        elif isinstance(node, ast.Try):
            ended = self._block(node.body, scope, returned)
            for handler in node.handlers:
                ended &= self._block(handler.body, scope, returned)
            self._block(node.orelse, scope, returned)
            return self._block(node.finalbody, scope, returned) or ended
        elif isinstance(node, ast.FunctionDef):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            self._class(node, scope)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node, scope)
        elif isinstance(node, ast.Match):
            self._eval(node.subject, scope)
            for case in node.cases:
                self._block(case.body, scope, returned)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._eval(child, scope)
        return isinstance(node, _ENDS)

    def _if(self, node, scope, returned):
        truth = self._truth(node.test, scope)
        if truth is None:
            first = self._block(node.body, scope, returned)
            second = self._block(node.orelse, scope, returned)
            return first and second and bool(node.orelse)
        return self._block(node.body if truth else node.orelse, scope, returned)

    def _function(self, node, scope):
        function = OwnFunction(node, scope)
        scope.names[node.name] = frozenset({function})
        if scope.outer is not None:
            self._enter(function)

    def _class(self, node, scope):
        bases = tuple(value for base in node.bases for value in self._eval(base, scope))
        own = OwnClass(node, scope, bases)
        scope.names[node.name] = frozenset({own})
        for part in node.body:
            if isinstance(part, (ast.Assign, ast.AnnAssign)) and part.value is not None:
                targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                value = self._eval(part.value, scope)
                for target in targets:
                    if isinstance(target, ast.Name):
                        self._learn(own, target.id, value)
        if scope.outer is not None:
            self._enter_methods(own)

    def _import(self, node, scope):
        if isinstance(node, ast.Import):
            for alias in node.names:
                is_library = alias.asname and alias.name == self.library.__name__
                name = alias.asname or alias.name.partition(".")[0]
                scope.names[name] = self._root() if is_library else frozenset({Other()})
            return
        for alias in node.names:
            name, full = alias.asname or alias.name, f"{node.module}.{alias.name}"
            if full == self.library.__name__:
                scope.names[name] = self._root()
                continue
            if full in self.scopes:
                scope.names[name] = frozenset({OwnModule(full)})
            elif node.module in self.scopes:
                scope.names[name] = self.scopes[node.module].names.get(alias.name, UNKNOWN)
            elif node.module != "__future__":
                scope.names[name] = frozenset({Other()})

    def _assign(self, target, value, scope):
        if isinstance(target, ast.Name):
            scope.names[target.id] = scope.names.get(target.id, UNKNOWN) | value
        elif isinstance(target, ast.Attribute):
            self._assign_attribute(target, value, scope)
        elif isinstance(target, (ast.Tuple, ast.List)):
            self._unpack(target, value, scope)
        elif isinstance(target, ast.Subscript):
            self._eval(target.value, scope)

    def _assign_attribute(self, target, value, scope):
        for owner in self._eval(target.value, scope):
            if isinstance(owner, OwnInstance):
                self._learn(owner.cls, target.attr, value)
            elif isinstance(owner, Instance):
                self._use(scope, target, f"{owner.cls.__name__}.{target.attr} set")
                declared = getattr(owner.cls, target.attr, None)
                if declared is None:
                    self._find(
                        scope, target, f"{self._title(owner.cls)} has no attribute {target.attr!r} to set"
                    )
                elif isinstance(declared, property) and declared.fset is None:
                    self._find(scope, target, f"{self._title(owner.cls)}.{target.attr} cannot be set")
                elif isinstance(declared, property):
                    heads = pybind_signatures(declared.fset.__doc__ or "", "x") or []
                    for head in heads:
                        if not self._type_fits(head.parameters[-1].type, value):
                            self._find(
                                scope,
                                target,
                                f"{self._title(owner.cls)}.{target.attr} takes {head.parameters[-1].type}, "
                                f"not {self._describe(value)}",
                            )

    def _learn(self, own, name, value):
        key = (id(own.node), name)
        self.attributes[key] = self.attributes.get(key, UNKNOWN) | value

    def _unpack(self, target, value, scope):
        names = target.elts
        starred = next((i for i, e in enumerate(names) if isinstance(e, ast.Starred)), None)
        for each in value:
            elements = self._fields(each) if isinstance(each, OwnInstance) else None
            if isinstance(each, Sequence):
                elements = each.elements
            if elements is None:
                continue
            fits = len(elements) == len(names) if starred is None else len(elements) >= len(names) - 1
            if not fits:
                self._find(scope, target, f"{len(elements)} results are unpacked into {len(names)} names")
                continue
            before = names if starred is None else names[:starred]
            for name, element in zip(before, elements, strict=False):
                self._assign(name, element, scope)
            if starred is not None:
                after = len(names) - starred - 1
                rest = elements[starred : len(elements) - after]
                self._assign(names[starred].value, frozenset({Sequence(tuple(rest))}), scope)
                for name, element in zip(
                    names[starred + 1 :], elements[len(elements) - after :], strict=True
                ):
                    self._assign(name, element, scope)

    def _fields(self, instance):
        """Return the fields of a NamedTuple, None for other classes."""
        if not any("NamedTuple" in ast.unparse(base) for base in instance.cls.node.bases):
            return None
        names = [n.target.id for n in instance.cls.node.body if isinstance(n, ast.AnnAssign)]
        return tuple(self._attribute_of_own(instance, name) for name in names)

    def _elements(self, value):
        found = UNKNOWN
        for each in value:
            if isinstance(each, Sequence):
                for element in each.elements:
                    found |= element
            elif isinstance(each, Instance) and hasattr(each.cls, "__getitem__"):
                found |= {each}  # an array of structs is an instance of the struct's class
        return found


def _is_static(node):
    return has_decorator(node, "staticmethod")
