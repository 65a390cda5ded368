"""What bundle.json says about a network that was wrapped (`tcmoa wrap`), its entry `network`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from tcmoa_runtime.manifest import ManifestReader
from tcmoa_runtime.typing import JsonObject

KIND: Final = "wrapped"
MAX_NAME_CHARACTERS: Final = 80

_NAME: Final = re.compile(rf"[ -~]{{1,{MAX_NAME_CHARACTERS}}}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class WrappedNetwork:
    """A network of others in a bundle.

    Attributes:
        name: What reports call it, e.g. `ifcnn`: 1 to 80 printable ASCII characters.
        sha256: Hash of the original file, or of the exported module, hexadecimal.
        source: Where it is from, as given: a file name or an address.
        license: License as given.
        conventions: What surrounds the network in the graph: ranges, colors, layouts.
    """

    name: str
    sha256: str
    source: str | None = None
    license: str | None = None
    conventions: JsonObject = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Describe the network for bundle.json."""
        return {
            "kind": KIND,
            "name": self.name,
            "source": self.source,
            "license": self.license,
            "sha256": self.sha256,
            "conventions": self.conventions,
        }


def is_network_name(name: str) -> bool:
    """Whether a bundle may hold a network of this name."""
    return _NAME.fullmatch(name) is not None


def read_network(reader: ManifestReader) -> WrappedNetwork | None:
    """Read the entry `network` of bundle.json; None if the bundle holds a TC-MoA.

    Raises:
        BundleError: An entry is missing, of another type, or out of range.
    """
    if "network" not in reader.values:
        return None
    network = reader.part("network")
    if network.get("kind", str, among=("tc-moa", KIND)) != KIND:
        return None
    name, sha256 = network.get("name", str), network.get("sha256", str)
    if not is_network_name(name):
        network.refuse("name", f"1 to {MAX_NAME_CHARACTERS} printable ASCII characters")
    if not _SHA256.fullmatch(sha256):
        network.refuse("sha256", "64 hexadecimal digits")
    return WrappedNetwork(
        name=name,
        sha256=sha256,
        source=_read_text(network, "source"),
        license=_read_text(network, "license"),
        conventions=network.get("conventions", dict),
    )


def _read_text(reader: ManifestReader, key: str) -> str | None:
    return None if reader.values.get(key) is None else reader.get(key, str)
