"""Expressions of the product's source: what they can be."""

import ast
import functools

from proof.library_uses import LibraryUses, has_name
from proof.values import (
    UNKNOWN,
    Constant,
    Instance,
    Method,
    Other,
    OwnClass,
    OwnFunction,
    OwnInstance,
    OwnModule,
    Real,
    Scope,
    Sequence,
)


class Expressions(LibraryUses):
    """Evaluates expressions; uses of the library in them are checked."""

    def _eval(self, node, scope):
        """Return what an expression can be."""
        method = getattr(self, f"_eval_{type(node).__name__.lower()}", None)
        if method is not None:
            return method(node, scope)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._eval(child, scope)
        return UNKNOWN

    def _eval_constant(self, node, scope):
        return frozenset({Constant(node.value)})

    def _eval_name(self, node, scope):
        return self._lookup(node.id, scope)

    def _lookup(self, name, scope):
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return UNKNOWN

    def _eval_tuple(self, node, scope):
        elements = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                inner = self._eval(element.value, scope)
                sequences = [v for v in inner if isinstance(v, Sequence)]
                if len(sequences) != 1 or len(inner) != 1:
                    return UNKNOWN
                elements += sequences[0].elements
            else:
                elements.append(self._eval(element, scope))
        return frozenset({Sequence(tuple(elements))})

    def _eval_namedexpr(self, node, scope):
        value = self._eval(node.value, scope)
        self._assign(node.target, value, scope)
        return value

    def _eval_ifexp(self, node, scope):
        truth = self._truth(node.test, scope)
        if truth is not None:
            return self._eval(node.body if truth else node.orelse, scope)
        return self._eval(node.body, scope) | self._eval(node.orelse, scope)

    def _eval_boolop(self, node, scope):
        found = UNKNOWN
        is_and = isinstance(node.op, ast.And)
        for value in node.values:
            found |= self._eval(value, scope)
            if self._truth(value, scope) is (not is_and):
                break  # the rest is never evaluated
        return found

    def _eval_subscript(self, node, scope):
        index = self._eval(node.slice, scope)
        found = UNKNOWN
        for value in self._eval(node.value, scope):
            if isinstance(value, Other):
                found |= {value}
            elif isinstance(value, Sequence) and len(index) == 1:
                i = next(iter(index))
                if (
                    isinstance(i, Constant)
                    and isinstance(i.value, int)
                    and -len(value.elements) <= i.value < len(value.elements)
                ):
                    found |= value.elements[i.value]
        return found

    def _eval_lambda(self, node, scope):
        function = OwnFunction(node, scope)
        self._enter(function)
        return frozenset({function})

    def _comprehension(self, node, scope):
        inner = Scope(scope.module, outer=scope)
        for generator in node.generators:
            self._assign(generator.target, self._elements(self._eval(generator.iter, inner)), inner)
            for condition in generator.ifs:
                self._eval(condition, inner)
        for part in ("elt", "key", "value"):
            if hasattr(node, part):
                self._eval(getattr(node, part), inner)
        return UNKNOWN

    _eval_listcomp = _eval_setcomp = _eval_generatorexp = _eval_dictcomp = _comprehension

    def _eval_attribute(self, node, scope):
        owners = self._eval(node.value, scope)
        if not owners:
            if self._is_root_attribute(node.attr):
                return self._root()
            self._unresolved(scope, node)
            return UNKNOWN
        self.resolved_names.add((scope.module, node.lineno, node.col_offset))
        found = UNKNOWN
        for owner in owners:
            found |= self._attribute(owner, node.attr, scope, node)
        return found or (self._root() if self._is_root_attribute(node.attr) else UNKNOWN)

    def _attribute(self, owner, name, scope, node):
        if isinstance(owner, Real):
            self._use(scope, node, f"{owner.name}.{name}")
            if not hasattr(owner.value, name):
                self._find(scope, node, f"{self._title(owner.value)} has no {name!r}")
                return UNKNOWN
            return frozenset({Real(getattr(owner.value, name), f"{owner.name}.{name}")})
        if isinstance(owner, Instance):
            return self._attribute_of_instance(owner.cls, name, scope, node)
        if isinstance(owner, OwnModule):
            return self.scopes[owner.name].names.get(name, UNKNOWN)
        if isinstance(owner, OwnInstance):
            found = self._attribute_of_own(owner, name)
            if not found:
                for base in self._real_bases(owner.cls):
                    if hasattr(base, name):
                        return self._attribute_of_instance(base, name, scope, node)
            return found
        if isinstance(owner, OwnClass):
            return self._class_attribute(owner, name)
        return frozenset({owner}) if isinstance(owner, Other) else UNKNOWN

    def _attribute_of_own(self, owner, name):
        found = UNKNOWN
        for cls in self._mro(owner.cls):
            found |= self.attributes.get((id(cls.node), name), UNKNOWN)
        for cls in self._mro(owner.cls):
            node = _member(cls.node, name)
            if isinstance(node, ast.FunctionDef):
                function = OwnFunction(node, cls.scope, owner)
                if has_decorator(node, "property"):
                    return found | self._interpret(function, [], {})
                return found | {function}
            if isinstance(node, ast.AnnAssign) and not found:
                found |= self._annotated(ast.arg(arg=name, annotation=node.annotation), cls.scope)
        return found

    def _class_attribute(self, own, name):
        found = self.attributes.get((id(own.node), name), UNKNOWN)
        for cls in self._mro(own):
            node = _member(cls.node, name)
            if isinstance(node, ast.FunctionDef):
                is_bound = has_decorator(node, "classmethod")
                return found | {OwnFunction(node, cls.scope, own if is_bound else None)}
        return found

    # Calls

    def _eval_call(self, node, scope):
        builtin = self._builtin(node, scope)
        if builtin is not None:
            return builtin
        functions = self._eval(node.func, scope)
        positional, is_known = self._positional(node, scope)
        keywords = {k.arg: self._eval(k.value, scope) for k in node.keywords if k.arg is not None}
        is_known = is_known and all(k.arg is not None for k in node.keywords)
        found = UNKNOWN
        for function in functions:
            found |= self._call(function, positional, keywords, is_known, scope, node)
        return found

    def _positional(self, node, scope):
        """Return the positional arguments, and whether their number is known."""
        values, is_known = [], True
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                inner = self._eval(argument.value, scope)
                if len(inner) == 1 and isinstance(next(iter(inner)), Sequence):
                    values += next(iter(inner)).elements
                else:
                    is_known = False
            else:
                values.append(self._eval(argument, scope))
        return values, is_known

    def _call(self, function, positional, keywords, is_known, scope, node):
        if isinstance(function, (OwnFunction, OwnClass)):
            self.sites.append((scope.module, node.lineno))
            try:
                if isinstance(function, OwnClass):
                    return self._construct(function, positional, keywords)
                return self._interpret(function, positional, keywords, has_unknown=not is_known)
            finally:
                self.sites.pop()
        if isinstance(function, Method):
            declared = getattr(function.cls, function.name)
            return self._call_real(
                declared,
                f"{function.cls.__name__}.{function.name}",
                [None, *positional],
                keywords,
                is_known,
                scope,
                node,
            )
        if isinstance(function, Real):
            value = function.value
            if isinstance(value, type):
                self._call_real(
                    value.__init__, function.name, [None, *positional], keywords, is_known, scope, node
                )
                return frozenset({Instance(value)})
            if callable(value):
                return self._call_real(value, function.name, positional, keywords, is_known, scope, node)
        return frozenset({function}) if isinstance(function, Other) else UNKNOWN

    def _construct(self, own, positional, keywords):
        instance = OwnInstance(own)
        for cls in self._mro(own):
            init = _member(cls.node, "__init__")
            if init is not None:
                self._interpret(OwnFunction(init, cls.scope, instance), positional, keywords)
                return frozenset({instance})
        names = [
            n.target.id
            for cls in reversed(self._mro(own))
            for n in cls.node.body
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        ]
        for name, value in [*zip(names, positional, strict=False), *keywords.items()]:
            self._learn(own, name, value)
        return frozenset({instance})

    # Builtins that look names up

    def _builtin(self, node, scope):
        if not isinstance(node.func, ast.Name):
            return self._import_module(node, scope)
        name = node.func.id
        if name == "getattr" and len(node.args) >= 2:
            return self._getattr(node, scope)
        if name == "hasattr" and len(node.args) == 2:
            return self._hasattr(node, scope)
        if name == "len" and len(node.args) == 1:
            lengths = {
                len(v.elements) if isinstance(v, Sequence) else None for v in self._eval(node.args[0], scope)
            }
            return (
                frozenset({Constant(lengths.pop())}) if len(lengths) == 1 and None not in lengths else UNKNOWN
            )
        if name in ("cast", "enumerate", "iter", "reversed", "sorted", "list", "tuple") and node.args:
            values = [self._eval(argument, scope) for argument in node.args]
            return values[-1] if name == "cast" else UNKNOWN
        if name == "import_library":
            for argument in node.args:
                self._eval(argument, scope)
            return UNKNOWN if self.flavor is None else self._root()
        return None

    def _import_module(self, node, scope):
        if ast.unparse(node.func) not in ("importlib.import_module", "sys.modules.get"):
            return None
        names = (
            {v.value for v in self._eval(node.args[0], scope) if isinstance(v, Constant)} if node.args else ()
        )
        if self.library.__name__ in names:
            return self._root()
        return frozenset({Other()}) if names else UNKNOWN

    def _getattr(self, node, scope):
        owners, names = self._eval(node.args[0], scope), self._eval(node.args[1], scope)
        default = self._eval(node.args[2], scope) if len(node.args) > 2 else None
        constants = [n.value for n in names if isinstance(n, Constant) and isinstance(n.value, str)]
        real = [o for o in owners if isinstance(o, (Real, Instance))]
        place = (str(self.files[scope.module]), node.lineno, ast.unparse(node))
        if not constants:
            constants = [
                n
                for o in real
                if isinstance(o, Real)
                for n in self.choices.get(o.name.rpartition(".")[2], ())
            ]
        if real:
            (self.reached_dynamic if constants else self.unreached_dynamic).add(place)
        found = UNKNOWN
        for owner in owners:
            for name in constants:
                target = owner.value if isinstance(owner, Real) else getattr(owner, "cls", None)
                if default is not None and isinstance(owner, (Real, Instance)) and not has_name(target, name):
                    self.report.optional.add(f"{self._title(target)}.{name}")
                    found |= default
                else:
                    found |= self._attribute(owner, name, scope, node)
        return found

    def _hasattr(self, node, scope):
        owners, names = self._eval(node.args[0], scope), self._eval(node.args[1], scope)
        answers = set()
        for owner in owners:
            target = owner.value if isinstance(owner, Real) else getattr(owner, "cls", None)
            for name in names:
                if isinstance(owner, (Real, Instance)) and isinstance(name, Constant):
                    answers.add(has_name(target, name.value))
                    if not has_name(target, name.value):
                        self.report.optional.add(f"{self._title(target)}.{name.value}")
                else:
                    answers.add(None)
        return frozenset({Constant(answers.pop())}) if len(answers) == 1 and None not in answers else UNKNOWN

    # Conditions

    def _truth(self, test, scope):
        """Return whether a condition holds, None if it is not known."""
        if isinstance(test, ast.BoolOp):
            parts = [self._truth(value, scope) for value in test.values]
            stop = isinstance(test.op, ast.Or)
            if stop in parts:
                return stop
            return None if None in parts else not stop
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self._truth(test.operand, scope)
            return None if inner is None else not inner
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return self._compare(test, scope)
        value = self._eval(test, scope)
        if len(value) == 1 and isinstance(next(iter(value)), Constant) and _is_probe(test):
            return bool(next(iter(value)).value)
        return None

    def _compare(self, test, scope):
        left, right = self._eval(test.left, scope), self._eval(test.comparators[0], scope)
        if not isinstance(test.ops[0], (ast.Eq, ast.NotEq)):
            return None
        words = ast.unparse(test.left).split(".")
        given = test.comparators[0]
        if words[-1] == "flavor" and self.flavor is not None and isinstance(given, ast.Constant):
            return (given.value == self.flavor) == isinstance(test.ops[0], ast.Eq)
        if _is_length(test.left) and len(left) == len(right) == 1:
            a, b = next(iter(left)), next(iter(right))
            if isinstance(a, Constant) and isinstance(b, Constant):
                return (a.value == b.value) == isinstance(test.ops[0], ast.Eq)
        return None


@functools.cache
def _members(node):
    """Return the functions and annotated names of a class body by name."""
    found = {}
    for part in node.body:
        if isinstance(part, ast.FunctionDef):
            found.setdefault(part.name, part)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            found.setdefault(part.target.id, part)
    return found


def _member(node, name):
    return _members(node).get(name)


def has_decorator(node, name):
    return any(
        ast.unparse(d).split(".")[-1].split("(")[0] == name for d in getattr(node, "decorator_list", ())
    )


def _is_probe(test):
    return isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "hasattr"


def _is_length(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len"
