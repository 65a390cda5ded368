"""Hints that say how to install what is missing, from a checkout and for a wheel."""

import json
from importlib import metadata

import pytest

from tcmoa_runtime import install
from tcmoa_runtime.cli.doctor_packages import Package, describe_packages
from tcmoa_runtime.install import TORCH_ON_CPUS, install_command, install_hint


class Installed:
    """A distribution whose direct_url.json is given."""

    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Function that pretends how the project was installed; {folder} is a checkout with a space in its name."""
    checkout = tmp_path / "my checkout"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()

    def pretend(origin):
        text = origin.replace("{folder}", checkout.as_uri()) if isinstance(origin, str) else origin
        monkeypatch.setattr(metadata, "distribution", lambda _: Installed(text))
        install._find_checkout.cache_clear()
        return checkout

    yield pretend
    install._find_checkout.cache_clear()


def origin(url, **parts):
    return json.dumps({"url": url, **parts})


@pytest.mark.parametrize(
    ("direct_url", "command"),
    [
        (None, "pip install 'tcmoa[stream]'"),
        (origin("{folder}", dir_info={"editable": True}), "pip install -e '{folder}[stream]'"),
        (origin("{folder}", dir_info={}), "pip install '{folder}[stream]'"),
        (origin("file:///gone", dir_info={}), "pip install 'tcmoa[stream]'"),
        (origin("file:///a/tcmoa-1-py3-none-any.whl", archive_info={}), "pip install 'tcmoa[stream]'"),
        (origin("https://host/tcmoa.git", vcs_info={"vcs": "git"}), "pip install 'tcmoa[stream]'"),
        ("{", "pip install 'tcmoa[stream]'"),
        ("[" * 100_000, "pip install 'tcmoa[stream]'"),
        ("[1]", "pip install 'tcmoa[stream]'"),
    ],
)
def test_the_command_fits_how_the_project_was_installed(direct_url, command, installed):
    checkout = installed(direct_url)
    assert install_command("stream") == command.replace("{folder}", str(checkout))


def test_a_source_tree_that_is_not_installed_is_installed_from_itself(monkeypatch):
    def missing(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", missing)
    install._find_checkout.cache_clear()
    try:
        assert install_command("a", "b").startswith("pip install -e ")
    finally:
        install._find_checkout.cache_clear()


@pytest.mark.parametrize(
    ("platform", "extra", "has_torch"),
    [
        ("linux", "export", True),
        ("linux", "train", True),
        ("linux", "stream", False),
        ("darwin", "export", False),
    ],
)
def test_the_hint_for_pytorch_says_how_to_do_without_cuda(platform, extra, has_torch, installed, monkeypatch):
    installed(None)
    monkeypatch.setattr(install.sys, "platform", platform)
    expected = f"Run `pip install 'tcmoa[{extra}]'`"
    if has_torch:
        expected += f"; for CPUs only, run `{TORCH_ON_CPUS}` before it"
    assert install_hint(extra) == expected


def test_doctor_lists_the_packages_of_every_extra_with_their_versions(installed):
    installed(None)
    packages = [
        Package("numpy", "2.4"),
        Package("onnx", "1.20", ("export", "rtx")),
        Package("torch", None, ("export",)),
        Package("onnxruntime-gpu", "1.30"),
        Package("onnxruntime-ep-nv-tensorrt-rtx", None),
    ]
    assert describe_packages(packages) == [
        "base install: numpy 2.4",
        f"export: onnx 1.20, torch not installed. {install_hint('export')}",
        "rtx: onnx 1.20",
        "others: onnxruntime-gpu 1.30",
    ]
