"""Bundles of a micro model, frames, and ways to run code and the command line."""

import json
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
from tcmoa import Sizes
from tcmoa_export import bundle_export, export_bundle
from tcmoa_runtime import Fuser
from tcmoa_runtime.backends import pick as backends
from tcmoa_runtime.bundle import MANIFEST
from tcmoa_runtime.cli import run
from tcmoa_runtime.images import write_image
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256
from tcmoa_runtime.options.export import ExportOptions

HEIGHT, WIDTH = 100, 130

OPTIONS = {
    "vif": {"with_prompt": True},
    "plain": {},
    "mef": {"task": "mef", "with_prompt": True},
    "batch": {"batch": 2, "with_prompt": True},
    "bgr": {"channel_order": "bgr"},
    "grey": {"gray": ("y",)},
    "bgr grey": {"channel_order": "bgr", "gray": ("y",)},
    "resize": {"as_published": True},
}
"""What each bundle is exported with, besides task vif and 130x100; all from one model."""


@contextmanager
def one_thread():
    """Torch on one thread: on such a small model, threads that wait for a busy core cost twenty times more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def export_micro(out, **options):
    with one_thread():
        model = scrambled(Sizes(64, 4, 2, 64, 4, 2))
        export_bundle(model, ExportOptions(**{"task": "vif", "size": (HEIGHT, WIDTH), **options}), out)
    return out


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Path of a bundle by its name in OPTIONS; made once, never to be changed."""
    folder = tmp_path_factory.mktemp("bundles")

    def path_of(name):
        out = folder / name
        return out if out.exists() else export_micro(out, **OPTIONS[name])

    return path_of


@pytest.fixture(scope="session")
def vif(exported):
    return exported("vif")


@pytest.fixture(scope="session")
def in_two_files(tmp_path_factory):
    """A bundle whose weights lie beside the graph, as those beyond 2 GiB do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_export, "MAX_INLINE_BYTES", 0)
        return export_micro(tmp_path_factory.mktemp("two") / "bundle", **OPTIONS["vif"])


@pytest.fixture(scope="session")
def fuser(vif):
    with Fuser.load(vif) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def pair():
    """x and y, uint8 [H, W, 3]."""
    return tuple(frames(HEIGHT, WIDTH, 2, seed=1))


@pytest.fixture(scope="session")
def four_pairs():
    """x and y, uint8 [4, H, W, 3], all frames different."""
    return frames(HEIGHT, WIDTH, 4, seed=2), frames(HEIGHT, WIDTH, 4, seed=3)


@pytest.fixture
def broken(vif, tmp_path):
    """A copy of the bundle to be damaged."""
    return Path(shutil.copytree(vif, tmp_path / "broken"))


@pytest.fixture(scope="session")
def rehash():
    """Change a manifest by a function and give it the right hash again."""

    def change_manifest(folder, change):
        manifest = json.loads((folder / MANIFEST).read_bytes())
        change(manifest)
        manifest[SELF_HASH] = manifest_sha256(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return change_manifest


@pytest.fixture
def sources(tmp_path, pair):
    """x.png and y.png of `pair`, in a folder of their own."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name, frame in zip("xy", pair, strict=True):
        write_image(folder / f"{name}.png", frame)
    return folder / "x.png", folder / "y.png"


@pytest.fixture
def folders(tmp_path, four_pairs):
    """Folders x and y of a.png, b.png, c.png."""
    for source, batch in zip("xy", four_pairs, strict=True):
        (tmp_path / source).mkdir()
        for name, frame in zip("abc", batch[:3], strict=True):
            write_image(tmp_path / source / f"{name}.png", frame)
    return tmp_path / "x", tmp_path / "y"


@pytest.fixture
def tree():
    """Every path below a folder, with the content of files."""
    return lambda folder: {p: p.read_bytes() if p.is_file() else None for p in Path(folder).rglob("*")}


@pytest.fixture
def no_openvino(monkeypatch):
    """`auto` finds no OpenVINO, as in the base install; by name it is there all the same."""
    find = backends.find_spec
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "openvino" else find(name))


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def assert_error(self, code, *words):
        """One line on stderr that names `words`, nothing on stdout."""
        assert (self.code, self.out) == (code, "")
        (line,) = self.err.splitlines()
        assert line.startswith("tcmoa: error: ")
        for word in words:
            assert str(word) in line


@pytest.fixture
def tcmoa(capfd):
    """Run the command line in this process; what native code prints is caught, too."""

    def call(*arguments):
        capfd.readouterr()
        code = run([str(a) for a in arguments])
        return Outcome(code, *capfd.readouterr())

    return call


@pytest.fixture
def tcmoa_process():
    """Run the installed `tcmoa` command."""

    def call(*arguments):
        command = [Path(sys.executable).with_name("tcmoa"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
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
    """Run code in a new interpreter, where the named packages cannot be imported."""

    def call(code, blocked=()):
        command = [sys.executable, "-c", BLOCKER.format(blocked=set(blocked)) + code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def grey_levels_apart():
    """Largest difference of two images."""
    return lambda a, b: int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())
