"""Packages of NVIDIA, downloaded with pip and unpacked in the proof's cache."""

import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

from proof.report import SkippedError

_NETWORK = "a network with a package registry"
_PATIENCE = ("--retries", "1", "--timeout", "30")


class Wheels:
    """A folder of unpacked wheels, which threads may share.

    Args:
        folder: Where they are kept; what is there is not downloaded again.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._locks, self._lock = {}, threading.Lock()
        self._versions = {}

    def versions(self, package):
        """Return the versions of a package that this Python can install, the newest first."""
        with self.lock(package):
            if package not in self._versions:
                output = _pip("index", "versions", package)
                line = next(
                    (row for row in output.splitlines() if row.startswith("Available versions: ")), ""
                )
                if not line:
                    raise SkippedError(f"pip lists no versions of {package}", _NETWORK)
                self._versions[package] = line.removeprefix("Available versions: ").split(", ")
            return self._versions[package]

    def unpack(self, package, version):
        """Return the folder of a wheel's files."""
        folder = self.folder / f"{package}-{version}"
        with self.lock(folder):
            if (folder / ".complete").exists():
                return folder
            shutil.rmtree(folder, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as downloads:
                _pip(
                    *("download", "--quiet", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"),
                    *("--dest", downloads, f"{package}=={version}"),
                )
                for wheel in Path(downloads).glob("*.whl"):
                    with zipfile.ZipFile(wheel) as archive:
                        archive.extractall(folder)
            (folder / ".complete").touch()
        return folder

    def lock(self, key):
        """Return the lock of a file, a folder or a package."""
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *_PATIENCE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next((row for row in reversed(done.stderr.splitlines()) if "ERROR" in row), "pip failed")
        raise SkippedError(last.removeprefix("ERROR: "), _NETWORK)
    return done.stdout
