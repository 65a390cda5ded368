"""`tcmoa fuse`: fuse two images, or two folders of images."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import numpy as np
import typer
from numpy.typing import NDArray

from tcmoa_runtime.cli.options import (
    BundleArgument,
    JsonOption,
    TextForm,
    parse_number,
    spell_for_command_line,
    takes_options,
)
from tcmoa_runtime.cli.progress import console, print_json, progress_bar
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import (
    IMAGE_SUFFIXES,
    check_writable,
    format_size,
    in_order,
    read_image,
    to_frame,
    write_image,
)
from tcmoa_runtime.options.fuse import FuseOptions, ImageFormat
from tcmoa_runtime.pairs import PairPaths, find_pairs, read_pair
from tcmoa_runtime.prompts import mask_to_shift, pool_to_grid
from tcmoa_runtime.typing import Frame, FrameSize, JsonObject, PromptMap

Sources = tuple[NDArray[Any], NDArray[Any]]


def parse_shift(text: str) -> float | Path:
    """Parse beta: a number, or the path of an image."""
    return Path(text) if Path(text).suffix.lower() in IMAGE_SUFFIXES else parse_number(text)


SHIFT_FORM = TextForm(parse_shift, str, "BETA|MASK.png")
_FORMAT_FORM = TextForm(
    lambda text: text.lower().removeprefix("."),
    str,
    "|".join(get_args(ImageFormat)),  # .PNG is png, too
)


@dataclass
class _Report:
    """Results of fusing pairs."""

    seconds: list[float] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def add_failure(self, name: str, error: InputError) -> None:
        """Record a pair that was not fused."""
        self.failed.append({"name": name, "error": error.render(spell_for_command_line)})

    def median_ms(self) -> float:
        """Median time of a pair."""
        return float(np.median(self.seconds)) * 1000

    def to_json(self, backend: str) -> JsonObject:
        """Return the summary of `--json`."""
        times = np.array(self.seconds) * 1000
        ms: JsonObject = {
            f"p{q}": round(float(np.percentile(times, q)), 3) if len(times) else None for q in (50, 95)
        }
        result: JsonObject = {
            "backend": backend,
            "images": len(self.outputs),
            "ms": ms,
            "outputs": list(self.outputs),
        }
        return {**result, "failed": list(self.failed)} if self.failed else result


@takes_options(FuseOptions, forms={"prompt_shift": SHIFT_FORM, "format": _FORMAT_FORM})
def fuse(
    options: FuseOptions,
    bundle: BundleArgument,
    x: Annotated[Path, typer.Argument(help="First source: an image, or a folder of images.")],
    y: Annotated[Path, typer.Argument(help="Second source, like x.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The fused image, or a folder for fused images.")],
    as_json: JsonOption = False,
) -> int:
    """Fuse two registered images of one scene, or all pairs of two folders.

    The two folders hold files of equal names, or NAME_x.EXT and NAME_y.EXT. If both are in one folder, give it twice.

    Examples:

        tcmoa fuse night-640x480 visible.png infrared.png -o fused.png
        tcmoa fuse night-640x480 visible/ infrared/ -o fused/ --prompt-shift 0.2
    """
    pairs, targets = _plan(x, y, out, options.format)
    with Fuser.load(
        bundle,
        options.backend,
        threads=options.threads,
        fit=options.fit or "auto",
        percentiles=options.stretch,
    ) as fuser:
        prompt = Prompt.read(options.prompt_scale, options.prompt_shift)
        if x.is_dir():
            report = _fuse_folder(fuser, pairs, targets, prompt)
        else:
            report = _Report()
            chunk = [(pairs[0], _read(pairs[0], fuser))]
            _fuse_chunk(fuser, chunk, targets, prompt, report)
        backend = fuser.backend.name
    for failure in report.failed:
        console.print(f"tcmoa: error: {failure['error']}", markup=False, soft_wrap=True)
    if as_json:
        print_json(report.to_json(backend))
    elif report.outputs:
        count = len(report.outputs)
        what = report.outputs[0] if count == 1 else f"{count} images in {out}"
        print(f"{what} ({backend}, {report.median_ms():.0f} ms per pair)")
    if report.failed:
        rest = f"; the others are in {out}" if report.outputs else ""
        raise InputError(f"{len(report.failed)} of {len(pairs)} pairs were not fused, see above{rest}")
    return 0


@dataclass(frozen=True)
class Prompt:
    """Alpha and beta of Eq. 8 as given on the command line; None for the bundle's default.

    Attributes:
        scale: Alpha.
        shift: Beta, or a painted mask uint8 [H, W].
        path: Path of the mask, for messages.
    """

    scale: float | None
    shift: float | Frame | None
    path: Path | None = None

    @classmethod
    def read(cls, scale: float | None, shift: float | Path | None) -> Self:
        """Read the mask, if beta is one.

        Raises:
            InputError: The mask is not an 8-bit image.
        """
        if not isinstance(shift, Path):
            return cls(scale, shift)
        image = read_image(shift)
        if image.dtype != np.uint8:
            raise InputError(
                f"holds {image.dtype}; expected an 8-bit mask (black is -0.5, 128 is 0, white is +0.5)",
                subject=shift,
            )
        return cls(scale, to_frame(image, str(shift), 1)[..., 0], shift)

    def shift_for(self, fuser: Fuser, size: FrameSize) -> float | PromptMap | None:
        """Return beta for frames of `size` (height, width): a number, or a map [gh, gw].

        Raises:
            InputError: The mask has neither the size of the frame nor one pixel per token.
        """
        if not isinstance(self.shift, np.ndarray):
            return self.shift
        if fuser.fit == "resize":
            size = fuser.size
        grid = fuser.grid_of(size)
        if self.shift.shape not in (size, grid):
            raise InputError(
                f"{format_size(self.shift.shape)}; expected {format_size(size)} (the frame) or "
                f"{format_size(grid)} (one pixel per token)",
                subject=self.path,
            )
        return pool_to_grid(mask_to_shift(self.shift), grid, fuser.bundle.map_token)


def _plan(x: Path, y: Path, out: Path, image_format: str) -> tuple[list[PairPaths], dict[str, Path]]:
    """Return the pairs and the path of each result, all checked before anything is loaded."""
    if x.is_dir() != y.is_dir():
        raise InputError(
            "one file and one folder; expected two images or two folders", subject=f"{x} and {y}"
        )
    if not x.is_dir():
        for source in (x, y):
            if not source.is_file():
                raise InputError("no such image file", subject=source)
            if out.exists() and out.samefile(source):
                raise _overwrites_source(out)
        return [PairPaths(x.stem, x, y)], {x.stem: check_writable(out)}
    if out.exists() and not out.is_dir():
        raise InputError("a file; expected a folder, like x and y", subject=out)
    if out.exists() and (out.samefile(x) or out.samefile(y)):
        raise _overwrites_source(out)
    pairs = find_pairs(x, y)
    return pairs, {pair.name: out / f"{pair.name}.{image_format}" for pair in pairs}


def _overwrites_source(out: Path) -> InputError:
    return InputError(
        "is a source; expected another path for the result",
        subject=out,
        remedy="Choose another {out}",
        settings={"out": ...},
    )


def _read(pair: PairPaths, fuser: Fuser) -> Sources:
    """Read a pair in the bundle's channel order; only a bundle that aligns its sources takes two sizes."""
    bundle = fuser.bundle
    return read_pair(pair, bundle.channel_order, same_size=bundle.alignment is None)


def _chunks(
    fuser: Fuser, pairs: Sequence[PairPaths], report: _Report, advance: Callable[[int], None]
) -> Iterator[list[tuple[PairPaths, Sources]]]:
    """Group readable pairs by the bundle's batch; all pairs of a group have one shape and type."""
    chunk: list[tuple[PairPaths, Sources]] = []
    for pair in pairs:
        try:
            sources = _read(pair, fuser)
        except InputError as error:
            report.add_failure(pair.name, error)
            advance(1)
            continue
        if chunk and [(s.shape, s.dtype) for s in chunk[0][1]] != [(s.shape, s.dtype) for s in sources]:
            yield chunk
            chunk = []
        chunk.append((pair, sources))
        if len(chunk) == fuser.bundle.contract.batch:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _fuse_chunk(
    fuser: Fuser,
    chunk: Sequence[tuple[PairPaths, Sources]],
    targets: dict[str, Path],
    prompt: Prompt,
    report: _Report,
) -> None:
    """Fuse and write the pairs of one group."""
    height, width = chunk[0][1][0].shape[:2]
    scale, shift = prompt.scale, prompt.shift_for(fuser, (height, width))
    start = time.perf_counter()
    if len(chunk) == 1:
        fused = [fuser(*chunk[0][1], scale=scale, shift=shift)]
    else:
        x, y = (np.stack([s[i] if s[i].ndim == 3 else s[i][..., None] for _, s in chunk]) for i in (0, 1))
        fused = list(fuser(x, y, scale=scale, shift=shift))
    seconds = time.perf_counter() - start
    for (pair, _), image in zip(chunk, fused, strict=True):
        write_image(targets[pair.name], in_order(image, fuser.bundle.channel_order))
        report.outputs.append(str(targets[pair.name]))
        report.seconds.append(seconds / len(chunk))


def _fuse_folder(
    fuser: Fuser, pairs: Sequence[PairPaths], targets: dict[str, Path], prompt: Prompt
) -> _Report:
    """Fuse all pairs; a pair that fails is reported, and the others are fused."""
    report = _Report()
    folder = next(iter(targets.values())).parent
    new_folders = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be created: {error.strerror}", subject=folder) from error
    try:
        with progress_bar("fusing", len(pairs)) as advance:
            for chunk in _chunks(fuser, pairs, report, advance):
                try:
                    _fuse_chunk(fuser, chunk, targets, prompt, report)
                except InputError as error:
                    for pair, _ in chunk:
                        if str(targets[pair.name]) not in report.outputs:
                            report.add_failure(pair.name, _about_pair(pair, error))
                advance(len(chunk))
    finally:
        if not report.outputs:
            with contextlib.suppress(OSError):  # another program may have written there
                for empty in new_folders:
                    empty.rmdir()
    return report


def _about_pair(pair: PairPaths, error: InputError) -> InputError:
    """Return the error with the pair's name before its subject."""
    return error.with_subject(pair.name if error.subject is None else f"{pair.name}: {error.subject}")
