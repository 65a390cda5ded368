"""fleet.toml: the pairs of a fleet, with defaults for all of them.

[defaults]
bundle = "nano-vif"
out = "/video/{pair}-{time}.mkv"

[pairs.gate]
x = "rtsp://192.168.1.10/visible"
y = "rtsp://192.168.1.10/thermal"
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar, get_type_hints

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.location import path_of, redact, redact_text, scheme_of
from tcmoa_runtime.options.fleet import PairOptions
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.one_source import OneSourceOptions
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.options.source import SourceOptions
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.options.toml_table import field_value, read_toml, unknown_key
from tcmoa_runtime.ready_bundles import READY_NAMES
from tcmoa_runtime.streams.setup import StreamSetup

MAX_PAIRS: Final = 10_000

_EXAMPLE: Final = "[pairs.gate]"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PLACEHOLDER: Final = re.compile(r"\{([a-z]\w*)\}")
_PAIR_TEXTS: Final = ("bundle", "x", "y", "log")
_OPTIONS: Final = (
    StreamOptions,
    SourceOptions,
    OneSourceOptions,
    SinkOptions,
    FuserOptions,
    PairOptions,
)
_STDIN_KEYS: Final = ("raw_x", "raw_y")
"""Options of raw video on stdin, which a stream of a fleet does not have."""

OptionsT = TypeVar("OptionsT")


def _documented(options_class: type[Any]) -> dict[str, Any]:
    """Return the types of the fields that are options, by name."""
    hints = get_type_hints(options_class, include_extras=True)
    return {
        field.name: hints[field.name]
        for field in fields(options_class)
        if hasattr(hints[field.name], "__metadata__") and field.name not in _STDIN_KEYS
    }


_FIELDS: Final[Mapping[type[object], Mapping[str, Any]]] = {
    options_class: _documented(options_class) for options_class in _OPTIONS
}
KEYS: Final = (*_PAIR_TEXTS, "out", "copy_x", *(name for known in _FIELDS.values() for name in known))
"""All keys of `[defaults]` and of a pair."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A pair of cameras and what becomes of it.

    Attributes:
        name: Name of the pair.
        setup: Its stream; `{time}` in outputs is not yet replaced.
        options: Where it runs, and when it is restarted.
    """

    name: str
    setup: StreamSetup
    options: PairOptions

    @property
    def digest(self) -> str:
        """SHA-256 of everything that a running stream depends on; equal digests need no restart."""
        return hashlib.sha256(repr((self.setup, self.options)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class FleetFile:
    """A fleet as its file describes it.

    Attributes:
        name: Name of the fleet; the name of the file without suffix, if it states none.
        pairs: The pairs by name, in the order of the file.
        is_named: Whether the file states the name.
    """

    name: str
    pairs: Mapping[str, Pair]
    is_named: bool = True

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file.

        Raises:
            InputError: The file cannot be read, a key is unknown, or a value is wrong. Passwords are not shown.
        """
        values = read_toml(path, _EXAMPLE)
        for key in values:
            if key not in ("name", "defaults", "pairs"):
                raise InputError(
                    f"'{key}' is no key of a fleet; expected name, defaults or pairs", subject=path
                )
        name = _fleet_name(values, path)
        defaults = _table(values.get("defaults", {}), f"{path}: defaults")
        _check_table(defaults, f"{path}: defaults")
        tables = _table(values.get("pairs", {}), f"{path}: pairs")
        if not tables:
            raise InputError(
                "no pairs; expected a table for each pair of cameras, e.g. [pairs.gate]", subject=path
            )
        if len(tables) > MAX_PAIRS:
            raise InputError(f"{len(tables)} pairs; expected at most {MAX_PAIRS}", subject=path)
        pairs = {}
        for pair_name, table in tables.items():
            subject = f"{path}: pairs.{pair_name}"
            if not _NAME.fullmatch(pair_name):
                raise InputError(
                    f"{pair_name!r}; expected a name of letters, digits, - _ and .", subject=f"{path}: pairs"
                )
            own = _table(table, subject)
            _check_table(own, subject)
            pairs[pair_name] = _make_pair(pair_name, {**defaults, **own}, path, subject)
        _check_outputs_differ(pairs, path)
        return cls(name=name, pairs=pairs, is_named="name" in values)

    @classmethod
    def read_name(cls, path: Path) -> str:
        """Read the name of a fleet on a cluster only; the rest of the file may be wrong.

        Raises:
            InputError: The file cannot be read, is not TOML, or its name is missing or wrong.
        """
        values = read_toml(path, _EXAMPLE)
        if "name" not in values:
            raise unnamed(path)
        return _fleet_name(values, path)


def unnamed(path: Path) -> InputError:
    """Return the error about a fleet without a name of its own, which would be that of another user of a cluster."""
    return InputError(
        "no name; expected one, by which a cluster tells this fleet from others",
        subject=path,
        remedy='Begin the file with a line such as name = "yard"',
    )


def _fleet_name(values: Mapping[str, object], path: Path) -> str:
    name = values.get("name", path.stem)
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise InputError(f"{name!r}; expected a name of letters, digits, - _ and .", subject=f"{path}: name")
    return name


def _table(value: object, subject: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"{redact_text(repr(value))}; expected a table", subject=subject)
    return value


def _check_table(table: Mapping[str, object], subject: str) -> None:
    """Check the keys and values of one table by themselves, so that an error names the table that holds it."""
    for key in table:
        if key in _STDIN_KEYS:
            raise InputError(f"'{key}' is for stdin, which a stream of a fleet cannot read", subject=subject)
        if key not in KEYS:
            raise unknown_key(key, KEYS, subject=subject, what="option")
    for key in _PAIR_TEXTS:
        if key in table and field_value(table[key], str, f"{subject}: {key}") == "":
            # An empty path is a folder: that of the file.
            raise InputError("''; expected a path, a name or a URL", subject=f"{subject}: {key}")
    if "out" in table:
        field_value(table["out"], list[str], f"{subject}: out")
    if "copy_x" in table:
        field_value(table["copy_x"], bool, f"{subject}: copy_x")
    for options_class in _OPTIONS:
        _make_options(options_class, table, subject)


def _make_options(options_class: type[OptionsT], table: Mapping[str, object], subject: str) -> OptionsT:
    """Make options of what a table states of them."""
    found = {}
    for key, hint in _FIELDS[options_class].items():
        if key in table:
            where = f"{subject}: {key}"
            found[key] = (
                _labels(table[key], where) if key == "labels" else field_value(table[key], hint, where)
            )
    shift = found.get("prompt_shift")
    if isinstance(shift, Path) and shift.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"{str(shift)!r}; expected a number or the path of a mask, e.g. mask.png",
            subject=f"{subject}: prompt_shift",
        )
    try:
        return options_class(**found)
    except InputError as error:
        raise error.with_subject(f"{subject}: {error.subject}") from error


def _labels(value: object, subject: str) -> dict[str, str]:
    if not (isinstance(value, dict) and all(isinstance(item, str) for item in value.values())):
        raise InputError(f"{value!r}; expected a table of strings, e.g. {{zone = 'gate'}}", subject=subject)
    return value


def _make_pair(name: str, table: Mapping[str, object], path: Path, subject: str) -> Pair:
    """Make a pair of its table, in which defaults are filled in already."""
    for key in ("bundle", "x", "y"):
        if key not in table:
            raise InputError(f"no {key}; expected it in this table or in [defaults]", subject=subject)
    folder = path.absolute().parent
    texts = {
        key: _fill_pair(str(table[key]), name, f"{subject}: {key}") for key in _PAIR_TEXTS if key in table
    }
    outs = [
        _fill_pair(out, name, f"{subject}: out") for out in _texts(table.get("out", []), f"{subject}: out")
    ]
    for key in ("x", "y"):
        if texts[key] == "-":
            raise InputError(
                "stdin (-), which a stream of a fleet cannot read; expected a camera, a file or a URL",
                subject=f"{subject}: {key}",
            )
    for out in outs:
        _check_output(out, f"{subject}: out")
    if "log" in texts:
        _check_output(texts["log"], f"{subject}: log")
    options = _make_options(PairOptions, table, subject)
    fuser = _make_options(FuserOptions, table, subject)
    if isinstance(fuser.prompt_shift, Path):
        fuser = replace(fuser, prompt_shift=folder / fuser.prompt_shift)
    if fuser.threads is None:
        fuser = replace(fuser, threads=max(1, int(options.cpus)))
    setup = StreamSetup(
        bundle=_bundle_path(texts["bundle"], folder),
        x=_absolute(texts["x"], folder),
        y=_absolute(texts["y"], folder),
        outs=tuple(_absolute(out, folder) for out in outs),
        log=folder / texts["log"] if "log" in texts else None,
        copy_x=table.get("copy_x") is True,
        stream=_make_options(StreamOptions, table, subject),
        sources=_make_options(SourceOptions, table, subject),
        one_source=_make_options(OneSourceOptions, table, subject),
        sink=_make_options(SinkOptions, table, subject),
        fuser=fuser,
    )
    return Pair(name=name, setup=setup, options=options)


def _texts(value: object, subject: str) -> Sequence[str]:
    found = field_value(value, list[str], subject)
    return found if isinstance(found, list) else []


def _fill_pair(text: str, name: str, subject: str) -> str:
    """Replace `{pair}`; refuse other words in braces, but leave `{time}` in outputs."""
    known = ("pair", "time") if subject.endswith((": out", ": log")) else ("pair",)
    for word in _PLACEHOLDER.findall(text):
        if word not in known:
            raise InputError(
                f"{{{word}}} in {redact(text)!r}; expected {' or '.join(f'{{{word}}}' for word in known)}",
                subject=subject,
            )
    return text.replace("{pair}", name)


def _check_output(out: str, subject: str) -> None:
    """Refuse outputs that a stream of a fleet cannot have, and files that a restart would overwrite."""
    if out in ("-", "window"):
        raise InputError(
            f"{out!r}; expected files or URLs, because a stream of a fleet has neither stdout nor a screen",
            subject=subject,
        )
    if scheme_of(out) in ("", "file") and "{time}" not in out:
        raise InputError(
            f"{out!r} would be overwritten by each restart; expected a name with {{time}}, e.g. "
            f"'{_with_time(out)}'",
            subject=subject,
        )


def _with_time(out: str) -> str:
    """Return a name of an output with the time in it, as an example."""
    if out.endswith("/"):
        return f"{out}{{time}}/"
    path = Path(out)
    if "%" in path.name:
        return str(path.parent / "{time}" / path.name)
    return str(path.with_name(f"{path.stem}-{{time}}{path.suffix}"))


def _bundle_path(text: str, folder: Path) -> Path:
    path = folder / text
    return Path(text) if text in READY_NAMES and not path.exists() else path


def _absolute(location: str, folder: Path) -> str:
    """Return a location with the path of a file or folder made absolute: nodes have other current folders."""
    if scheme_of(location) == "file":
        return str(path_of(location))
    if scheme_of(location):
        return location
    end = "/" if location.endswith("/") else ""
    return str(folder / location) + end


def _check_outputs_differ(pairs: Mapping[str, Pair], path: Path) -> None:
    """Refuse two pairs with the same output."""
    first: dict[str, str] = {}
    for pair in pairs.values():
        outs = pair.setup.all_outs
        for out in outs:
            other = first.setdefault(out, pair.name)
            if other != pair.name or outs.count(out) > 1:
                raise InputError(
                    f"{redact(out)} is an output of pairs.{other}, too; expected another one for each, e.g. with "
                    "{pair}",
                    subject=f"{path}: pairs.{pair.name}",
                )
