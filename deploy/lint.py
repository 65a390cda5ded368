"""Check the compose files and the Helm chart with compose's and Helm's own programs, without Docker and Kubernetes.

    python lint.py

Runs in the environment build/tools of `make deploy-lint`. Rendered objects are compared with the schemas of the oldest
and the newest Kubernetes that the package kubernetes-validate knows. Of objects of KubeRay and of the Prometheus
operator the names of fields are checked, and pods in them with Kubernetes' schema of a pod.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import kubernetes_validate.utils
import yaml
from custom_resources import CUSTOM_KINDS, find_pods, find_unknown_fields

DEPLOY = Path(__file__).parent
PROGRAMS = Path(sys.executable).parent
CHART = DEPLOY / "helm" / "tcmoa"
COMPOSE = (
    ("try.yaml",),
    ("stream.yaml",),
    ("stream.yaml", "devices.yaml"),
    ("stream.yaml", "gpu.yaml"),
    ("service.yaml",),
    ("service.yaml", "gpu.yaml"),
    ("ray.yaml",),
)
"""Files that are given together."""
COMPOSE_VARIABLES = {
    "TCMOA_TOKEN": "a-token-of-yours",
    "TCMOA_X": "/dev/video0",
    "TCMOA_Y": "/dev/video2",
    "TCMOA_DATA": "/data",
    "RAY_AUTH_TOKEN": "a-token-of-yours",
}

# Each call reads some MB of definitions otherwise.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def run(program: str, *arguments: str | Path, **variables: str) -> str:
    """Return what a program of build/tools prints; end with its message if it fails."""
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
    )
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(map(str, arguments))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def find_problems(found: dict, version: str) -> Iterator[str]:
    """Yield what is wrong with an object, for a version of Kubernetes."""
    fields = CUSTOM_KINDS.get((found["apiVersion"], found["kind"]))
    if fields is None:
        yield from _schema_problems(found, version)
        return
    unknown = list(find_unknown_fields(found["spec"], fields, "spec"))
    yield from unknown
    for template in find_pods(found["spec"], fields) if not unknown else ():
        yield from _schema_problems(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": template.get("metadata", {}),
                "spec": template["spec"],
            },
            version,
        )


def _schema_problems(found: dict, version: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield error.message


def main() -> int:
    """Check everything; return the exit code."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        print(
            f"deploy-lint: skipped: {sys.platform}, {platform.machine()}; the programs run on Linux on x86-64"
        )
        return 0
    for names in COMPOSE:
        files = [word for name in names for word in ("-f", DEPLOY / "compose" / name)]
        run("docker-compose", *files, "config", "--quiet", **COMPOSE_VARIABLES)
    print(f"deploy-lint: compose: {len(COMPOSE)} combinations of files are valid")
    versions = kubernetes_validate.utils.all_versions()
    problems = []
    for values in (None, *sorted((CHART / "examples").glob("*.yaml"))):
        given = [] if values is None else ["--values", values]
        run("helm", "lint", "--strict", "--quiet", CHART, *given)
        objects = [o for o in yaml.safe_load_all(run("helm", "template", "release", CHART, *given)) if o]
        name = "values.yaml" if values is None else values.name
        for found in objects:
            # Volumes of images are newer than the oldest version.
            oldest = versions[-1] if name == "bundles.yaml" else versions[0]
            for version in sorted({oldest, versions[-1]}):
                for problem in find_problems(found, version):
                    problems.append(
                        f"{name}: {found['kind']} {found['metadata']['name']}, {version}: {problem}"
                    )
        print(f"deploy-lint: chart with {name}: {len(objects)} objects")
    for problem in problems:
        print(f"deploy-lint: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
