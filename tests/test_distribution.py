"""The sdist and the wheel: what they hold, and that the wheel runs; the lock that CI installs from."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytest.importorskip("hatchling", reason="hatchling builds the package; `make` installs it")

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "tcmoa": ROOT / "tcmoa",
    "tcmoa_export": ROOT / "export/tcmoa_export",
    "tcmoa_runtime": ROOT / "runtime/tcmoa_runtime",
    "tcmoa_calibration": ROOT / "calibration/tcmoa_calibration",
}


def files_in_git(*folders):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git, which knows the files of the project")
    return {line for line in listed.stdout.splitlines() if (ROOT / line).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Paths of the sdist, and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")

    def build(source, *arguments):
        command = [sys.executable, "-m", "hatchling", "build", *arguments, "-d", str(folder)]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    build(ROOT, "-t", "sdist")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build(folder / sdist.name.removesuffix(".tar.gz"), "-t", "wheel")
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    expected = {
        f"{name}/{Path(path).relative_to(folder.relative_to(ROOT))}"
        for name, folder in PACKAGES.items()
        for path in files_in_git(str(folder.relative_to(ROOT)))
    }
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == expected
    assert {Path(name).name for name in metadata} == {
        *("METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE", "LICENSE-WEIGHTS")
    }
    assert {f"{name}/py.typed" for name in PACKAGES} <= names


def test_the_sdist_holds_what_git_knows(built):
    with tarfile.open(built[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    left_out = re.compile(r"docs/[^/]*\.jpg|\.ci/.*|\.github/.*")
    assert names - {"PKG-INFO"} == {name for name in files_in_git(".") if not left_out.fullmatch(name)}


def test_the_wheel_runs_in_an_environment_of_its_own(built, tmp_path):
    """With the installed dependencies; tests of the documents install them too."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    code = (
        "import sys, tcmoa_runtime; from tcmoa_runtime.cli import main; "
        f"assert tcmoa_runtime.__file__.startswith({str(site)!r}); sys.argv = ['tcmoa', '--version']; main()"
    )
    command = [tmp_path / "venv" / "bin" / "python", "-P", "-c", code]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"\b{re.escape(built[1].name.split('-')[1])}\b", done.stdout)


def locked():
    """Version of each locked package, by name; those of the newest Python for packages with several."""
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE))


def test_the_lock_has_a_hash_for_each_version_and_names_no_index():
    entries = re.split(r"\n(?=[a-z0-9-]+==)", (ROOT / "requirements.lock").read_text())[1:]
    assert len(entries) > 80
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in "".join(entries)


def test_the_lock_and_the_constraint_satisfy_what_the_package_requires():
    """`make lock` renews the lock after a change of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    versions = {
        **locked(),
        "torch": re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)[1],
    }
    (own,) = (Requirement(text) for text in extras["dev"] if text.startswith("tcmoa["))
    groups = [project["dependencies"], extras["dev"], *(extras[name] for name in sorted(own.extras))]
    for requirement in (Requirement(text) for group in groups for text in group):
        if requirement.name != "tcmoa":
            assert requirement.specifier.contains(versions[requirement.name]), str(requirement)
