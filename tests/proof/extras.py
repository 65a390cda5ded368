"""The extras of pyproject.toml, and the versions that they allow."""

import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

from proof.sources import ROOT


def requirements_of(*extras):
    """Return what extras require; an extra that is not there requires nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for extra in extras for text in project["optional-dependencies"].get(extra, ())]


def requirement(extra, name):
    """Return what an extra requires of a package whose name starts with `name`; None if nothing."""
    return next((r for r in requirements_of(extra) if r.name.startswith(name)), None)


def allowed(versions, specifier):
    """Return the versions that a range allows, in the order given."""
    return [version for version in versions if specifier.contains(Version(version))]


def oldest_and_newest(versions):
    """Return the ends of a list that starts with the newest; one entry if they are the same."""
    return list(dict.fromkeys([versions[-1], versions[0]])) if versions else []
