"""Fixtures: bundles of a micro model, frames, and functions that run code and the command line."""

import json
import math
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from micro_model import frames, scrambled
from one_thread import one_thread_per_session
from tcmoa import Sizes
from tcmoa_export import bundle_files, export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.backends import pick as backends
from tcmoa_runtime.bundle import MANIFEST
from tcmoa_runtime.cli import progress, run
from tcmoa_runtime.images import write_image
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256
from tcmoa_runtime.options.export import ExportOptions

__all__ = ["one_thread_per_session"]

HEIGHT, WIDTH = 100, 130

OPTIONS = {
    "vif": {"with_prompt": True},
    "plain": {},
    "mef": {"task": "mef", "with_prompt": True},
    "batch": {"batch": 2, "with_prompt": True},
    "bgr": {"channel_order": "bgr"},
    "gray": {"gray": ("y",)},
    "bgr gray": {"channel_order": "bgr", "gray": ("y",)},
    "resize": {"as_published": True},
    "narrow": {"size": (7, 40)},
}
"""Export options of each bundle, besides task vif and size 130x100; all are of one model."""


@contextmanager
def one_thread():
    """Run PyTorch on one thread: with a small model and busy cores, more threads take 20 times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def export_micro(out, **options):
    """Export the micro model to `out` and return the path."""
    with one_thread():
        model = scrambled(Sizes(64, 4, 2, 64, 4, 2))
        export_bundle(model, ExportOptions(**{"task": "vif", "size": (HEIGHT, WIDTH), **options}), out)
    return out


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Function that returns the path of a bundle by its name in OPTIONS; read-only, exported once."""
    folder = tmp_path_factory.mktemp("bundles")

    def path_of(name):
        out = folder / name
        return out if out.exists() else export_micro(out, **OPTIONS[name])

    return path_of


@pytest.fixture(scope="session")
def vif(exported):
    """Path of the bundle `vif`; read-only."""
    return exported("vif")


@pytest.fixture(scope="session")
def external_data_bundle(tmp_path_factory):
    """Path of a bundle whose weights are in `fusion.data`, as weights above 2 GiB are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_files, "MAX_INLINE_BYTES", 0)
        return export_micro(tmp_path_factory.mktemp("two") / "bundle", **OPTIONS["vif"])


@pytest.fixture(scope="session")
def fuser(vif):
    """Fuser of the bundle `vif`."""
    with Fuser.load(vif) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def pair():
    """x and y, uint8 [H, W, 3]."""
    return tuple(frames(HEIGHT, WIDTH, 2, seed=1))


@pytest.fixture(scope="session")
def four_pairs():
    """x and y, uint8 [4, H, W, 3]; all frames differ."""
    return frames(HEIGHT, WIDTH, 4, seed=2), frames(HEIGHT, WIDTH, 4, seed=3)


@pytest.fixture
def broken(vif, tmp_path):
    """Path of a copy of the bundle `vif` that a test may damage."""
    return Path(shutil.copytree(vif, tmp_path / "broken"))


@pytest.fixture(scope="session")
def rehash():
    """Function that edits a manifest by a function and updates its hash."""

    def change_manifest(folder, change):
        manifest = json.loads((folder / MANIFEST).read_bytes())
        change(manifest)
        manifest[SELF_HASH] = manifest_sha256(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return change_manifest


@pytest.fixture(autouse=True)
def no_progress_lines(monkeypatch):
    """Print no line of progress, which depends on the time that a command takes."""
    monkeypatch.setattr(progress, "LINE_SECONDS", math.inf)


@pytest.fixture
def sources(tmp_path, pair):
    """Paths of x.png and y.png, the frames of `pair`, in a new folder."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, frame in zip("xy", pair, strict=True):
        write_image(folder / f"{name}.png", frame)
    return folder / "x.png", folder / "y.png"


@pytest.fixture
def folders(tmp_path, four_pairs):
    """Paths of the folders x and y, each with a.png, b.png and c.png."""
    for source, batch in zip("xy", four_pairs, strict=True):
        (tmp_path / source).mkdir()
        for name, frame in zip("abc", batch[:3], strict=True):
            write_image(tmp_path / source / f"{name}.png", frame)
    return tmp_path / "x", tmp_path / "y"


@pytest.fixture
def tree():
    """Function that returns all paths below a folder, with the content of files."""
    return lambda folder: {p: p.read_bytes() if p.is_file() else None for p in Path(folder).rglob("*")}


@pytest.fixture
def no_openvino(monkeypatch):
    """Hide OpenVINO from `auto`, as in the base install; `openvino` by name still works."""
    find = backends.find_spec
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "openvino" else find(name))


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The JSON object that is the only line on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def assert_error(self, code, *words):
        """Check the exit code, that stderr is one line that contains `words`, and that stdout is empty."""
        assert (self.code, self.out) == (code, "")
        (line,) = self.err.splitlines()
        assert line.startswith("tcmoa: error: ")
        for word in words:
            assert str(word) in line


@pytest.fixture
def tcmoa(capfd):
    """Function that runs the command line in this process; it captures the output of native code too."""

    def call(*arguments):
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def tcmoa_process():
    """Function that runs the installed `tcmoa` command."""

    def call(*arguments):
        command = [Path(sys.executable).with_name("tcmoa"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def fresh_python():
    """Function that runs code in a new interpreter, where the packages in `blocked` cannot be imported."""

    def call(code, blocked=()):
        command = [sys.executable, "-X", "faulthandler", "-c", BLOCKER.format(blocked=set(blocked)) + code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def max_gray_difference():
    """Function that returns the largest difference of two images, in gray levels."""
    return lambda a, b: int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())
