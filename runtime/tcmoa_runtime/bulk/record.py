"""The record in an output folder: the settings that its images were made with, so that no two kinds mix."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from tcmoa_runtime.bulk.columns import ColumnsBuilder, decode_name, encode_name
from tcmoa_runtime.bulk.result_listing import ResultColumns, ResultFiles, list_results, walk_files
from tcmoa_runtime.bulk.results import ResultFolder
from tcmoa_runtime.bulk.superseded import Superseded
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fusion_settings import Settings, describe_differences
from tcmoa_runtime.options.bulk import Container
from tcmoa_runtime.options.fuse import ImageFormat
from tcmoa_runtime.typing import JsonValue

RECORD_NAME: Final = ".tcmoa-bulk.json"
ERRORS_NAME: Final = "_errors.csv"
"""Table of the pairs that were not fused. Programs that read folders of Parquet files leave such names out."""
FORMAT_VERSION: Final = 1

_MAX_SHOWN: Final = 3
_PARTIAL: Final = re.compile(r"\..+\.[0-9a-f]{16}\.partial")
_NUM_DELETERS: Final = 16
_NUM_REWRITERS: Final = 4
"""Files with many results that are in memory at once."""
_NUM_DELETED: Final = 1024
"""Files whose paths are in memory at once to be removed."""


class ResultRecord:
    """What an output folder holds when a run begins.

    Attributes:
        is_new: Whether it holds no results.
        run: What identifies this run in the record: a later one that writes there takes the folder over.
    """

    def __init__(self, out: ResultFolder, settings: Settings, files: ResultFiles | None) -> None:
        """Take what `open` found; no files if there are none, or they were removed."""
        self._out, self._settings, self._files = out, settings, files
        self.is_new = files is None or not len(files)
        self.run = secrets.token_hex(8)
        self._created: list[Path] = []
        self._has_begun = False

    @classmethod
    def open(cls, out: ResultFolder, settings: Settings, *, overwrite: bool) -> ResultRecord:
        """Read the record of a folder and list its results; with `overwrite`, remove them.

        Raises:
            InputError: The folder holds results of other settings, or of another program, or cannot be read.
        """
        settings = {**settings, "container": out.container, "format": out.image_format}
        path = f"{out.path}/{RECORD_NAME}"
        if out.storage.exists(out.path) and not out.storage.is_folder(Path(out.path)):
            raise InputError("a file; expected a folder", subject=out.storage.spell(out.path))
        is_known = out.storage.exists(path)
        files = list_results(out)
        if overwrite:
            if len(files) and not is_known:
                raise _foreign(out, files)
            kinds = [out]
            if is_known:
                with contextlib.suppress(InputError):  # a damaged record: what it made is not known
                    kinds.append(_kind_of(out, _read(out, path)))
            for kind in kinds:  # a link in the folder may lead to files of others
                _delete(out, list_results(kind, follow_links=False).paths())
            out.storage.delete(path)  # last: results without a record are those of others
            return cls(out, settings, None)
        if not is_known:
            if len(files):
                raise _foreign(out, files)
            return cls(out, settings, None)
        made = _read(out, path)
        differences = describe_differences(made, settings)
        if differences and (len(files) or len(list_results(_kind_of(out, made)))):
            raise InputError(
                f"holds results made with {' and '.join(differences)}; expected results of one bundle and prompt",
                subject=out.storage.spell(out.path),
                remedy="Choose another {out}, or make them again with {overwrite}",
                settings={"out": ..., "overwrite": True},
            )
        return cls(out, settings, files)

    def begin(self) -> None:
        """Create the folder and write the record; raises InputError if the folder cannot be written.

        A folder with a record stays that of its last run, which may still write, until `claim`.
        """
        if not self._out.storage.is_remote:
            folder = Path(self._out.path)
            self._created = [path for path in (folder, *folder.parents) if not path.exists()]
        self._has_begun = True
        self._out.storage.make_folder(self._out.path)
        self._write(_run_of(self._out) or self.run)

    def claim(self) -> int | None:
        """Take the folder over from other runs, and remove the temporary files that killed ones have left.

        Returns:
            When that was by the clock of the folder, in nanoseconds since 1970: every result of this run is at least as
            new. None if its file system does not say.
        """
        self._write(self.run)
        self.remove_partial()
        file = self._out.storage.find(f"{self._out.path}/{RECORD_NAME}")
        return None if file is None else file.modified_ns

    def _write(self, run: str) -> None:
        content = {"format": FORMAT_VERSION, "run": run, "settings": dict(self._settings)}
        self._out.storage.write(
            f"{self._out.path}/{RECORD_NAME}", json.dumps(content, indent=1, allow_nan=False).encode()
        )

    def end(self, *, may_go_on: bool) -> None:
        """Remove what killed processes have left; and the record and the new folders, if there is no result in them.

        Args:
            may_go_on: Whether processes of the run may still write results, to which the record belongs.
        """
        with contextlib.suppress(InputError):  # what ended the run says more
            if self._has_begun and is_owner(self._out, self.run):
                self._clean(may_go_on=may_go_on)

    def _clean(self, *, may_go_on: bool) -> None:
        self.remove_partial()
        if not self.is_new or may_go_on or len(list_results(self._out)):
            return
        self._out.storage.delete(f"{self._out.path}/{RECORD_NAME}")
        if not self._out.storage.is_remote:
            with contextlib.suppress(OSError):  # it holds something else
                for folder in self._created:
                    folder.rmdir()

    def remove_partial(self) -> None:
        """Remove the temporary files that killed processes have left in the folder."""
        if self._out.storage.has_partial_files:
            partial = [
                path for path, _ in walk_files(self._out) if _PARTIAL.fullmatch(path.rpartition("/")[2])
            ]
            _delete(self._out, partial)

    def results_there(self) -> ResultColumns:
        """Return the pairs whose results are in the folder; raises InputError about a file with many results."""
        import pyarrow.compute as pc

        files = self._files or ResultFiles.of(self._out, ())
        if self._out.container == "files":
            names = pc.binary_slice(files.names, 0, -len(f".{self._out.image_format}"))
            return ResultColumns(names, files.times)
        builder = ColumnsBuilder(1, 2)
        part_names = []
        for number, (name, modified_ns) in enumerate(self.list_parts()):
            part_names.append(name)
            for pair, time_ns in self._out.read_times(f"{self._out.path}/{name}", modified_ns).items():
                builder.add(encode_name(pair), time_ns, number)
        names, times, parts = builder.finish()
        return ResultColumns(names, times, parts, part_names)

    def list_parts(self) -> list[tuple[str, int | None]]:
        """Return the files with many results, below the folder, and when each was changed last."""
        if self._files is None or self._out.container == "files":
            return []
        return [
            (decode_name(name.as_py()), time.as_py())
            for name, time in zip(self._files.names, self._files.times, strict=True)
        ]

    def list_again(self) -> None:
        """List the results that are there now."""
        self._files = list_results(self._out)

    def remove_results(self, superseded: Superseded) -> None:
        """Remove results from files with many, in which the other ones keep their times.

        Raises:
            InputError: A later run writes into the folder, or a file cannot be read or written.
        """
        check_owner(self._out, self.run)
        _delete(self._out, (f"{self._out.path}/{name}" for name in superseded.whole))
        with ThreadPoolExecutor(_NUM_REWRITERS) as pool:
            for _ in pool.map(self._remove_from, superseded.partly, superseded.partly.values()):
                pass

    def _remove_from(self, name: str, removed: Collection[str]) -> None:
        path = f"{self._out.path}/{name}"
        file = self._out.storage.find(path)
        if file is not None:
            results = self._out.read_results(path, file.modified_ns)
            check_owner(self._out, self.run)
            kept = {pair: image for pair, image in results.items() if pair not in removed}
            self._out.write_results(path, kept)


def is_owner(out: ResultFolder, run: str) -> bool:
    """Whether no later run has begun to write into a folder; raises InputError if its record cannot be read."""
    return _run_of(out) == run


def _run_of(out: ResultFolder) -> str | None:
    """Return what identifies the last run that has begun to write into a folder; None if there is none."""
    path = f"{out.path}/{RECORD_NAME}"
    try:
        record = json.loads(out.storage.read(path)) if out.storage.exists(path) else None
    except (ValueError, RecursionError):
        return None
    run = record.get("run") if isinstance(record, dict) else None
    return run if isinstance(run, str) else None


def check_owner(out: ResultFolder, run: str) -> None:
    """Raise InputError if a later run writes into a folder, or has ended there: both might store the same pairs."""
    if not is_owner(out, run):
        raise InputError(
            "another run has begun to write there; expected one at a time",
            subject=out.storage.spell(out.path),
            remedy="Let the other one end, or choose another {out}",
            settings={"out": ...},
        )


def _kind_of(out: ResultFolder, made: Settings) -> ResultFolder:
    """Return the folder with the container and the format that a record names; those of `out` if it names others."""
    container = next((kind for kind in get_args(Container) if kind == made.get("container")), out.container)
    image_format = next(
        (kind for kind in get_args(ImageFormat) if kind == made.get("format")), out.image_format
    )
    return replace(out, container=container, image_format=image_format)


def _delete(out: ResultFolder, paths: Iterable[str]) -> None:
    with ThreadPoolExecutor(_NUM_DELETERS) as pool:
        rest = iter(paths)
        while some := list(itertools.islice(rest, _NUM_DELETED)):
            for _ in pool.map(out.storage.delete, some):
                pass


def _read(out: ResultFolder, path: str) -> Mapping[str, JsonValue]:
    try:
        record = json.loads(out.storage.read(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(out, path) from error
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict) or record.get("format") != FORMAT_VERSION:
        raise _damaged(out, path)
    return settings


def _damaged(out: ResultFolder, path: str) -> InputError:
    return InputError(
        "damaged; expected the record of a run of this command",
        subject=out.storage.spell(path),
        remedy="Fuse all pairs again with {overwrite}",
        settings={"overwrite": True},
    )


def _foreign(out: ResultFolder, files: ResultFiles) -> InputError:
    names = sorted(decode_name(name) for name in files.names.to_pylist())
    rest = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return InputError(
        f"holds {', '.join(names[:_MAX_SHOWN])}{rest}, which no run of this command wrote; "
        "expected a folder without such files",
        subject=out.storage.spell(out.path),
        remedy="Choose another {out}, or move them away",
        settings={"out": ...},
    )
