"""What an expression of the product can be, as far as the check of calls needs to know."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Scope:
    """Names of a function's body, or of a module, and the scope around it."""

    module: str
    names: dict[str, frozenset[Any]] = field(default_factory=dict)
    outer: Scope | None = None


class _ByObject:
    """Equal if it is about the same object."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash(self.identity())


@dataclass(frozen=True, eq=False)
class Real(_ByObject):
    """An object of NVIDIA's module: a class, a function, a member of an enum."""

    value: Any
    name: str

    def identity(self):
        return (id(self.value), self.name)


@dataclass(frozen=True, eq=False)
class Instance(_ByObject):
    """An instance of a class of NVIDIA's module."""

    cls: type

    def identity(self):
        return id(self.cls)


@dataclass(frozen=True, eq=False)
class Method(_ByObject):
    """A method of such an instance."""

    cls: type
    name: str

    def identity(self):
        return (id(self.cls), self.name)


@dataclass(frozen=True, eq=False)
class OwnModule(_ByObject):
    """A module of the product."""

    name: str

    def identity(self):
        return self.name


@dataclass(frozen=True, eq=False)
class OwnClass(_ByObject):
    """A class of the product."""

    node: ast.ClassDef
    scope: Scope
    bases: tuple[Any, ...]

    def identity(self):
        return id(self.node)


@dataclass(frozen=True, eq=False)
class OwnInstance(_ByObject):
    """An instance of it; all instances of a class are one."""

    cls: OwnClass

    def identity(self):
        return self.cls.identity()


@dataclass(frozen=True, eq=False)
class OwnFunction(_ByObject):
    """A function of the product, bound to `owner` if it is a method."""

    node: Any
    scope: Scope
    owner: OwnInstance | OwnClass | None = None

    def identity(self):
        return (id(self.node), self.owner)


@dataclass(frozen=True)
class Constant:
    """A constant."""

    value: Any

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and (type(self.value), self.value) == (
            type(other.value),
            other.value,
        )


@dataclass(frozen=True)
class Other:
    """Something of a module that is neither the product's nor the library."""


@dataclass(frozen=True)
class Sequence:
    """A tuple or list of known length; each element is a set of what it can be."""

    elements: tuple[frozenset[Any], ...]


UNKNOWN: frozenset[Any] = frozenset()
"""What an expression can be where nothing is known."""
