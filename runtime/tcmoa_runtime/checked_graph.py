"""What libraries load: the bytes of a bundle's graph and weights that were checked, and no others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcmoa_runtime.bundle import GRAPH, GRAPH_DATA, Bundle
from tcmoa_runtime.errors import InputError


@contextmanager
def checked_graph(bundle: Bundle) -> Iterator[bytes | Path]:
    """Yield the graph for a library: its bytes, or a path where the weights are in a file of their own.

    Libraries find such weights by the path of the graph only, and open them again. So graph and weights are copied
    while they are hashed, into a new folder that only this user can enter, and the copy is what is loaded. The folder
    is deleted after the block; what a library has mapped into memory stays valid.

    Raises:
        BundleError: A file differs from bundle.json, or the graph holds what a bundle may not hold.
        InputError: The folder for temporary files has no room for the weights.
    """
    data = bundle.read_graph()
    if not bundle.has_external_data:
        yield data
        return
    size = bundle.files[GRAPH_DATA].bytes
    try:
        private = tempfile.TemporaryDirectory(prefix="tcmoa-")
    except OSError as error:
        # Not `gettempdir`, which raises the same error where there is no folder.
        raise _no_room(tempfile.tempdir or os.environ.get("TMPDIR", "/tmp"), size, error) from error
    with private:
        folder = Path(private.name)
        try:
            (folder / GRAPH).write_bytes(data)
            bundle.copy_weights(folder / GRAPH_DATA)
        except OSError as error:
            raise _no_room(folder.parent, size, error) from error
        yield folder / GRAPH


def _no_room(folder: str | os.PathLike[str], size: int, error: OSError) -> InputError:
    return InputError(
        f"cannot be written ({error.strerror}); expected room for a copy of the weights, {size / 1e9:.1f} GB",
        subject=folder,
        remedy="Set the environment variable TMPDIR to another folder",
    )
