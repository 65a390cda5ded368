"""What a pickle refers to, read from its instructions without running them, for messages about files of classes."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import torch

from tcmoa.checkpoint_names import WRAPPERS, printable_name
from tcmoa_runtime.errors import InputError

MAX_PROTOCOL: Final = 3
"""Highest protocol of pickles that `torch.load(weights_only=True)` reads; `torch.save` writes 2 by default."""

_PICKLES_PER_FILE: Final = 5
"""Pickles of a file in torch's format before 1.6: magic number, version, system, object, storage keys."""

_PLAIN: Final = frozenset(
    {
        "argparse.Namespace",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.Counter",
        "_codecs.encode",
        "__builtin__.set",
        "builtins.set",
        "torch._tensor._rebuild_from_type_v2",
        "torch.nn.parameter.Parameter",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
    }
)
_STRINGS: Final = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})


@dataclass(frozen=True)
class PickleSummary:
    """The names in a pickle.

    Attributes:
        names: Classes and functions that it refers to, with their modules, in order.
        root: The name with which it begins: the class of the pickled object if that is no dictionary or list.
        strings: Its strings.
        protocol: Its protocol.
    """

    names: tuple[str, ...]
    root: str | None
    strings: frozenset[str]
    protocol: int

    @property
    def foreign(self) -> tuple[str, ...]:
        """The names that a file of plain tensors does not have."""
        return tuple(name for name in self.names if not _is_plain(name))

    @property
    def has_module(self) -> bool:
        """Whether it contains a whole `torch.nn.Module`, not only its state dict."""
        return {"_parameters", "_modules"} <= self.strings

    @property
    def wrapper(self) -> str | None:
        """The key of the model's weights in the pickled dictionary."""
        if self.root not in (None, "collections.OrderedDict"):
            return None
        return next((key for key in WRAPPERS if key in self.strings), None)


def summarize_pickle(file: IO[bytes]) -> PickleSummary:
    """Read the names in a pickle, or in the pickles at the start of a file; stops where they are damaged."""
    names: dict[str, None] = {}
    strings: set[str] = set()
    root: str | None = None
    protocol = 0
    for _ in range(_PICKLES_PER_FILE):
        is_first = True
        for kind, value in _events(file):
            if kind == "protocol":
                protocol = max(protocol, int(value))
            elif kind == "string":
                strings.add(value)
            elif kind == "name":
                names.setdefault(value)
                root = value if is_first else root
            is_first = is_first and kind in ("protocol", "string")
    return PickleSummary(tuple(names), root, frozenset(strings), protocol)


def _events(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the protocols, strings, names (`module.name`) and other objects of one pickle."""
    recent: list[str] = ["", ""]  # the last strings, of which STACK_GLOBAL makes a name
    memo: dict[int, str] = {}
    top = ""
    try:
        for operation, argument, _ in pickletools.genops(file):
            name = operation.name
            if name == "PROTO":
                yield "protocol", str(argument)
            elif name in _STRINGS or name in _GETS:
                top = memo.get(int(str(argument)), "") if name in _GETS else str(argument)
                recent = [recent[-1], top]
                yield "string", top
            elif name in _PUTS:
                memo[int(str(argument))] = top
            elif name == "MEMOIZE":
                memo[len(memo)] = top
            elif name in ("GLOBAL", "INST"):
                yield "name", str(argument).replace(" ", ".", 1)
            elif name == "STACK_GLOBAL":
                yield "name", ".".join(recent)
            elif name != "FRAME":
                yield "other", ""
            if name not in _STRINGS and name not in _GETS and name not in _PUTS and name != "MEMOIZE":
                top = ""
    except Exception:  # damaged pickles raise various types; what was read before is enough for a message
        return


def _is_plain(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module == "torch":  # dtypes, storages, Size
        return isinstance(getattr(torch, attribute, None), type | torch.dtype)
    return name in _PLAIN or (module == "torch._utils" and attribute.startswith("_rebuild_"))


def describe_pickle(summary: PickleSummary, path: Path) -> InputError | None:
    """Return the error about a pickle that holds more than tensors, with a recipe to save them; None if it does not."""
    foreign = summary.foreign
    weights = "c" if summary.wrapper is None else f"c[{summary.wrapper!r}]"
    save = f"{{k: v for k, v in {weights}.items() if torch.is_tensor(v)}}"
    classes = ", ".join(printable_name(name) for name in foreign[:3])
    rest = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
    if foreign and summary.has_module:
        root = summary.root if summary.root in foreign else foreign[0]
        problem = f"holds a whole pickled module ({printable_name(root)}); expected its state dict"
        where = f"where {printable_name(root)} can be imported"
        save = f"{weights}.state_dict()"
    elif foreign:
        problem = f"holds objects other than tensors ({classes}{rest}); expected tensors only"
        where = f"where {printable_name(foreign[0])} can be imported"
    elif MAX_PROTOCOL < summary.protocol <= pickle.HIGHEST_PROTOCOL:
        problem = f"pickled with protocol {summary.protocol}; expected protocol 2, the default of torch.save"
        where = "with the default protocol"
    else:
        return None
    out = f"{path.stem}-tensors.pth"
    return InputError(
        problem,
        subject=path,
        remedy=(
            f"If you trust the file, save its tensors {where}: "
            f"`c = torch.load({str(path)!r}, map_location='cpu', weights_only=False)`, "
            f"then `torch.save({save}, {out!r})`"
        ),
    )
