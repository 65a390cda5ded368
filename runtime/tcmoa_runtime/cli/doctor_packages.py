"""Packages that `tcmoa doctor` lists: the requirements of this project and of its extras."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from tcmoa_runtime.install import PROJECT, install_hint
from tcmoa_runtime.machine import package_version

ALTERNATIVES: Final = ("onnxruntime-gpu", "onnxruntime-ep-nv-tensorrt-rtx")
"""Packages that exclude others: they are listed if they are installed, and `doctor_extras` says what installs them."""

_SKIPPED_EXTRAS: Final = ("dev", "docs")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA: Final = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class Package:
    """A package, its installed version, and the extras that require it; no extra: the base install does."""

    name: str
    version: str | None
    extras: tuple[str, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether the base install or an extra requires it."""
        return self.name not in ALTERNATIVES

    def describe(self) -> str:
        """Describe the package in a few words."""
        return f"{self.name} {self.version or 'not installed'}"


def list_packages() -> list[Package]:
    """List the packages that this project and its extras require, and alternatives to them."""
    try:
        requirements = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        requirements = []
    extras = parse_requirements(requirements)
    return [Package(name, package_version(name), extras.get(name, ())) for name in (*extras, *ALTERNATIVES)]


def group_by_extra(packages: Sequence[Package]) -> dict[str, list[Package]]:
    """Group packages by the extras that require them; those of the base install are first, under an empty name."""
    groups: dict[str, list[Package]] = {"": []}
    for package in packages:
        if package.is_required:
            for extra in package.extras or ("",):
                groups.setdefault(extra, []).append(package)
    return groups


def describe_packages(packages: Sequence[Package]) -> list[str]:
    """Describe packages and how to install those that are missing, a line for each extra."""
    lines = []
    for extra, group in group_by_extra(packages).items():
        line = f"{extra or 'base install'}: {', '.join(package.describe() for package in group)}"
        if any(package.version is None for package in group):
            line += f". {install_hint(extra)}" if extra else f". Run `pip install {PROJECT}`"
        lines.append(line)
    others = [
        package.describe() for package in packages if not package.is_required and package.version is not None
    ]
    return [*lines, f"others: {', '.join(others)}"] if others else lines


def parse_requirements(requirements: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the extras that require each package.

    Args:
        requirements: Requirements as in a package's metadata, e.g. `torch>=2.5; extra == 'export'`.

    Returns:
        Extras by package; empty for a package of the base install. Those of the base install come first.
    """
    base: dict[str, tuple[str, ...]] = {}
    extras: dict[str, tuple[str, ...]] = {}
    for requirement in requirements:
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name is None or name[0] == PROJECT:
            continue
        if extra is None:
            base[name[0]] = ()
        elif extra[1] not in _SKIPPED_EXTRAS:
            extras[name[0]] = (*extras.get(name[0], ()), extra[1])
    return base | {name: found for name, found in extras.items() if name not in base}
