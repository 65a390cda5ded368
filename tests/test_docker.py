"""The Dockerfiles, as far as they can be checked without Docker; `make docker-lint` runs hadolint."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(path):
    """Pairs of an instruction and its arguments, in order; continued lines are joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def test_there_is_one_for_cpus_and_one_for_gpus():
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_pinned_and_runs_tcmoa_without_root(path):
    found = instructions(path)
    arguments = dict(text.split("=", 1) for name, text in found if name == "ARG")
    bases = [text.split()[0] for name, text in found if name == "FROM"]
    for base in bases:
        image = arguments["BASE"] if base == "${BASE}" else base
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+", image), image
    assert set(arguments["EXTRAS"].split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    last = dict(found)  # the last of each kind
    assert last["ENTRYPOINT"] == '["tcmoa"]'
    assert last["WORKDIR"] == "/work"
    assert re.search(rf"--uid {last['USER']} ", last["RUN"])


def test_the_build_sees_what_the_wheel_is_made_of_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in let_through)
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    readme = [
        part["path"]
        for part in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["fragments"]
    ]
    for needed in ("pyproject.toml", *packages, *PROJECT["project"]["license-files"], *readme):
        assert any(Path(needed).is_relative_to(name) for name in let_through), needed
    assert not {".git", ".venv", "tests", "build"} & let_through
