"""Fusing all pairs of a folder: what is missing only, and failures counted by their kind."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tcmoa_runtime.cli.fuse_record import FolderRecord
from tcmoa_runtime.cli.fuse_report import FuseReport
from tcmoa_runtime.cli.printing import print_message
from tcmoa_runtime.cli.progress import progress_bar
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.fusion_settings import settings_of
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.images import in_order, write_image
from tcmoa_runtime.options.fuse import FuseOptions
from tcmoa_runtime.pair_fusion import Sources, fuse_batch, group_by_shape
from tcmoa_runtime.pairs import PairPaths, read_pair

Chunk = list[tuple[PairPaths, Sources]]

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of writing that every further result would meet too."""


def read_sources(pair: PairPaths, fuser: Fuser) -> Sources:
    """Read a pair in the bundle's channel order; only a bundle that aligns its sources takes two sizes."""
    bundle = fuser.bundle
    return read_pair(pair, bundle.channel_order, same_size=bundle.alignment is None)


def fuse_chunk(
    fuser: Fuser, chunk: Chunk, targets: Mapping[str, Path], prompt: Prompt, report: FuseReport
) -> None:
    """Fuse and write pairs of one shape and type, at most the bundle's batch.

    Raises:
        InputError: They cannot be fused, or a result cannot be written.
    """
    start = time.perf_counter()
    fused = fuse_batch(fuser, [sources for _, sources in chunk], prompt)
    seconds = time.perf_counter() - start
    for (pair, _), image in zip(chunk, fused, strict=True):
        write_image(targets[pair.name], in_order(image, fuser.bundle.channel_order))
        report.outputs.append(str(targets[pair.name]))
        report.seconds.append(seconds / len(chunk))


def fuse_folder(
    fuser: Fuser,
    pairs: Sequence[PairPaths],
    targets: Mapping[str, Path],
    prompt: Prompt,
    options: FuseOptions,
    report: FuseReport,
) -> None:
    """Fuse the pairs whose results are missing; a pair that fails is recorded in the report, the others are fused.

    Raises:
        InputError: The folder cannot be created, holds images of another bundle, prompt or program, or is full.
    """
    folder = next(iter(targets.values())).parent
    record = FolderRecord.open(
        folder,
        settings_of(fuser.bundle, fuser.fit, prompt, options.stretch),
        targets,
        overwrite=options.overwrite,
    )
    pending = [pair for pair in pairs if not record.is_complete(pair, targets[pair.name])]
    report.skipped = len(pairs) - len(pending)
    if not pending:
        return
    with _folder(folder), _record(record, report):
        record.begin(targets, {pair.name: pair for pair in pending})
        with progress_bar("fusing", len(pending)) as advance:
            for chunk in _chunks(fuser, pending, report, advance):
                done = len(report.outputs)
                try:
                    fuse_chunk(fuser, chunk, targets, prompt, report)
                except InputError as error:
                    if _is_out_of_space(error):
                        raise _out_of_space(error, report, len(pairs)) from error
                    for pair, _ in chunk[len(report.outputs) - done :]:
                        report.add_failure(pair.name, error, shown=_about_pair(pair, error))
                for pair, _ in chunk[: len(report.outputs) - done]:
                    record.add(pair, targets[pair.name])
                advance(len(chunk))


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Create the folder; what is left empty of it and of the folders above it is removed."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", subject=folder) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds results, or another program has written there
            for path in created:
                path.rmdir()


@contextlib.contextmanager
def _record(record: FolderRecord, report: FuseReport) -> Iterator[None]:
    """Keep the record, also after an interrupt, and then say how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        if report.outputs:
            print_message(
                f"tcmoa: {len(report.outputs)} more pairs are fused; run the same command to continue"
            )
        raise
    finally:
        record.close()


def _chunks(
    fuser: Fuser, pairs: Sequence[PairPaths], report: FuseReport, advance: Callable[[int], None]
) -> Iterator[Chunk]:
    """Group readable pairs by the bundle's batch; all pairs of a group have one shape and type."""

    def readable() -> Iterator[tuple[PairPaths, Sources]]:
        for pair in pairs:
            try:
                yield pair, read_sources(pair, fuser)
            except InputError as error:
                report.add_failure(pair.name, error)
                advance(1)

    yield from group_by_shape(readable(), fuser.bundle.contract.batch)


def _about_pair(pair: PairPaths, error: InputError) -> InputError:
    """Return the error with the pair's name before its subject."""
    return error.with_subject(pair.name if error.subject is None else f"{pair.name}: {error.subject}")


def _is_out_of_space(error: InputError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_SPACE


def _out_of_space(error: InputError, report: FuseReport, num_pairs: int) -> InputError:
    there = len(report.outputs) + (report.skipped or 0)
    return InputError(
        error.problem,
        subject=error.subject,
        remedy=f"{there} of {num_pairs} pairs are fused; make space, and run the same command to continue",
    )
