"""What shared objects need and offer, read by `readelf` of binutils."""

import re
import shutil
import subprocess

from proof.report import SkippedError


def _readelf(*arguments):
    if shutil.which("readelf") is None:
        raise SkippedError("readelf is not installed", "binutils")
    environment = {"LC_ALL": "C"}
    done = subprocess.run(
        ["readelf", "-W", *map(str, arguments)], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def needed(path):
    """Return the libraries that the loader opens for a shared object (`DT_NEEDED`)."""
    return re.findall(r"\(NEEDED\)\s+Shared library: \[(.+?)\]", _readelf("-d", path))


def soname(path):
    """Return the name that others need it by, None if it has none."""
    match = re.search(r"\(SONAME\)\s+Library soname: \[(.+?)\]", _readelf("-d", path))
    return match and match.group(1)


def search_path(path):
    """Return the folders that the loader searches for a shared object's libraries (`DT_RUNPATH` and `DT_RPATH`)."""
    found = re.findall(r"\((?:RUNPATH|RPATH)\)\s+Library (?:runpath|rpath): \[(.*?)\]", _readelf("-d", path))
    return [folder for paths in found for folder in paths.split(":") if folder]


def undefined_functions(path):
    """Return the functions without a version that other libraries must define, e.g. `createInferRuntime_INTERNAL`."""
    rows = [row.split() for row in _readelf("--dyn-syms", path).splitlines()]
    return sorted({row[7] for row in rows if len(row) == 8 and row[6] == "UND" and row[4] == "GLOBAL"})


def defined_functions(path):
    """Return the names that a shared object exports, without their versions."""
    rows = [row.split() for row in _readelf("--dyn-syms", path).splitlines()]
    return {row[7].partition("@")[0] for row in rows if len(row) >= 8 and row[6] not in ("UND", "Ndx")}
