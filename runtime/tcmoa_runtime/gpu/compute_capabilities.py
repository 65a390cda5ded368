"""Compute capabilities of NVIDIA's GPUs by name, as NVIDIA lists them: for building engines for other machines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tcmoa_runtime.errors import InputError

_NUM_NEAREST: Final = 4

_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "sm75": (
            "T4",
            "GTX 1650",
            "GTX 1650 Ti",
            "GTX 1650 SUPER",
            "GTX 1660",
            "GTX 1660 Ti",
            "GTX 1660 SUPER",
            "TITAN RTX",
            "RTX 2060",
            "RTX 2060 SUPER",
            "RTX 2070",
            "RTX 2070 SUPER",
            "RTX 2080",
            "RTX 2080 SUPER",
            "RTX 2080 Ti",
            "Quadro RTX 3000",
            "Quadro RTX 4000",
            "Quadro RTX 5000",
            "Quadro RTX 6000",
            "Quadro RTX 8000",
            "T400",
            "T500",
            "T550",
            "T600",
            "T1000",
            "T1200",
            "T2000",
        ),
        "sm80": ("A30", "A100", "A800"),
        "sm86": (
            "A2",
            "A10",
            "A10G",
            "A16",
            "A40",
            "RTX 3050",
            "RTX 3050 Ti",
            "RTX 3060",
            "RTX 3060 Ti",
            "RTX 3070",
            "RTX 3070 Ti",
            "RTX 3080",
            "RTX 3080 Ti",
            "RTX 3090",
            "RTX 3090 Ti",
            "RTX A400",
            "RTX A500",
            "RTX A1000",
            "RTX A2000",
            "RTX A3000",
            "RTX A4000",
            "RTX A4500",
            "RTX A5000",
            "RTX A5500",
            "RTX A6000",
        ),
        "sm87": ("Jetson AGX Orin", "Jetson Orin NX", "Jetson Orin Nano", "Jetson Orin Nano Super"),
        "sm89": (
            "L2",
            "L4",
            "L20",
            "L40",
            "L40S",
            "RTX 4050",
            "RTX 4060",
            "RTX 4060 Ti",
            "RTX 4070",
            "RTX 4070 SUPER",
            "RTX 4070 Ti",
            "RTX 4070 Ti SUPER",
            "RTX 4080",
            "RTX 4080 SUPER",
            "RTX 4090",
            "RTX 4090 D",
            "RTX 500 Ada",
            "RTX 1000 Ada",
            "RTX 2000 Ada",
            "RTX 3000 Ada",
            "RTX 3500 Ada",
            "RTX 4000 Ada",
            "RTX 4000 SFF Ada",
            "RTX 4500 Ada",
            "RTX 5000 Ada",
            "RTX 5880 Ada",
            "RTX 6000 Ada",
        ),
        "sm90": ("H20", "H100", "H200", "H800", "GH200"),
        "sm100": ("B100", "B200", "GB200"),
        "sm103": ("B300", "GB300"),
        "sm110": ("Jetson AGX Thor", "Jetson T4000", "Jetson T5000"),
        "sm120": (
            "RTX 5050",
            "RTX 5060",
            "RTX 5060 Ti",
            "RTX 5070",
            "RTX 5070 Ti",
            "RTX 5080",
            "RTX 5090",
            "RTX 5090 D",
            "RTX PRO 2000 Blackwell",
            "RTX PRO 4000 Blackwell",
            "RTX PRO 4500 Blackwell",
            "RTX PRO 5000 Blackwell",
            "RTX PRO 6000 Blackwell",
        ),
        "sm121": ("GB10",),
    }
)
"""Names without "NVIDIA" and "GeForce", by compute capability. Laptop GPUs and sizes of memory share a name."""

_TARGETS: Final[Mapping[str, str]] = MappingProxyType(
    {name: target for target, names in _NAMES.items() for name in names}
)
_IGNORED: Final = re.compile(
    r"nvidia|geforce|tesla|generation|laptop|mobile|notebook|max-q|gpu|tensor core|edition|workstation|server|pcie"
    r"|sxm[0-9]?|nvl|hbm[0-9]e?|super dev(eloper)? kit|developer kit|module|\b[0-9]+ ?gb\b|[^0-9a-z]"
)


def target_of(name: str) -> str:
    """Return the compute capability of a GPU, e.g. `sm89` for "NVIDIA GeForce RTX 4090".

    Args:
        name: The name in any case, with or without "NVIDIA", "GeForce", "Laptop GPU" and a size of memory.

    Raises:
        InputError: The name is unknown; the error lists the nearest ones.
    """
    by_key = {_key(known): target for known, target in _TARGETS.items()}
    if target := by_key.get(_key(name)):
        return target
    keys = {_key(known): known for known in _TARGETS}
    nearest = [keys[key] for key in difflib.get_close_matches(_key(name), keys, n=_NUM_NEAREST, cutoff=0.5)]
    expected = f"e.g. {', '.join(nearest or ['RTX 4090', 'RTX A6000', 'L4', 'Jetson AGX Orin'])}"
    raise InputError(
        f"{name!r} is unknown; expected the name of an NVIDIA GPU, {expected}",
        subject="gpu",
        remedy="Give its compute capability with {targets}, e.g. sm89: developer.nvidia.com/cuda-gpus lists them",
        settings={"targets": ...},
    )


def _key(name: str) -> str:
    """Reduce a name to what tells GPUs apart."""
    return _IGNORED.sub("", name.lower())
