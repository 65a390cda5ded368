"""`tcmoa fuse`: two images, or two folders of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from tcmoa_runtime.backends.pick import BACKENDS
from tcmoa_runtime.cli.progress import console, print_json, progress_bar
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import IMAGE_SUFFIXES, STRETCH, check_writable, read_image, to_frame, write_image
from tcmoa_runtime.pairs import PairPaths, find_pairs
from tcmoa_runtime.prompts import Map, mask_to_shift, parse_number, pool_to_grid


@dataclass
class _Report:
    """What was done, for the summary."""

    seconds: list[float] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def to_json(self, backend: str) -> dict[str, Any]:
        times = np.array(self.seconds) * 1000
        quantiles = {
            f"p{q}": round(float(np.percentile(times, q)), 3) if len(times) else None for q in (50, 95)
        }
        result = {"backend": backend, "images": len(self.outputs), "ms": quantiles, "outputs": self.outputs}
        return {**result, "failed": self.failed} if self.failed else result


def fuse(
    bundle: Annotated[Path, typer.Argument(help="The bundle, as `tcmoa export` wrote it.")],
    x: Annotated[Path, typer.Argument(help="First source: an image, or a folder of images.")],
    y: Annotated[Path, typer.Argument(help="Second source, as x.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The fused image, or a folder for them.")],
    backend: Annotated[
        str,
        typer.Option(
            help=f"auto (an engine that runs here, else the fastest installed), {', '.join(BACKENDS)}."
        ),
    ] = "auto",
    prompt_scale: Annotated[
        str | None,
        typer.Option(metavar="A", help="alpha of Eq. 8: 0 = equal shares, above 1 = sharper choice."),
    ] = None,
    prompt_shift: Annotated[
        str | None,
        typer.Option(
            metavar="B|MASK.png",
            help="beta of Eq. 8: above 0 favours x, below 0 y; or a grey image: black -0.5, 128 none, white +0.5.",
        ),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Adapt frames of another size than the bundle's.")
    ] = False,
    stretch: Annotated[
        str,
        typer.Option(metavar="LOW,HIGH", help="Percentiles of 16-bit images that become black and white."),
    ] = f"{STRETCH[0]:g},{STRETCH[1]:g}",
    image_format: Annotated[
        str, typer.Option("--format", help="File format of fused images when --out is a folder.")
    ] = "png",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores when not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> int:
    """Fuse two registered images of one scene, or all pairs of two folders.

    Folders hold equal names, or NAME_x.EXT and NAME_y.EXT (also both in one folder, given twice).
    """
    pairs, targets = _plan(x, y, out, image_format)
    with Fuser.load(
        bundle, backend, threads=threads, resize=resize, percentiles=stretch_percentiles(stretch)
    ) as fuser:
        scale = None if prompt_scale is None else parse_number(prompt_scale, "--prompt-scale")
        shift = None if prompt_shift is None else prompt_shift_of(prompt_shift, fuser)
        if x.is_dir():
            report = _fuse_folder(fuser, pairs, targets, scale, shift)
        else:
            report = _Report()
            _fuse_chunk(fuser, [(pairs[0], _read(fuser, pairs[0]))], targets, scale, shift, report)
        name = fuser.backend.name
    summary = report.to_json(name)
    for failure in report.failed:
        console.print(f"tcmoa: error: {failure['error']}", markup=False, soft_wrap=True)
    if as_json:
        print_json(summary)
    elif report.outputs:
        ms = f"{summary['ms']['p50']:.0f} ms a pair"
        what = report.outputs[0] if len(report.outputs) == 1 else f"{len(report.outputs)} images in {out}"
        print(f"{what} ({name}, {ms})")
    if report.failed:
        raise InputError(
            f"{len(report.failed)} of {len(pairs)} pairs were not fused, see above; the rest is in {out}"
        )
    return 0


def stretch_percentiles(text: str) -> tuple[float, float]:
    """The percentiles of `--stretch LOW,HIGH`."""
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(f"--stretch is {text!r}: expected two percentiles, as 1,99")
    return parse_number(parts[0], "--stretch"), parse_number(parts[1], "--stretch")


def _plan(x: Path, y: Path, out: Path, image_format: str) -> tuple[list[PairPaths], dict[str, Path]]:
    """The pairs to fuse and where each result goes, all checked before anything is loaded."""
    if x.is_dir() != y.is_dir():
        raise InputError(f"{x} and {y}: expected two images or two folders")
    if not x.is_dir():
        for source in (x, y):
            if not source.is_file():
                raise InputError(f"{source}: no such image file")
            if out.exists() and out.samefile(source):
                raise InputError(f"{out}: is a source itself; choose another --out")
        return [PairPaths(x.stem, x, y)], {x.stem: check_writable(out)}
    suffix = "." + image_format.lower().removeprefix(".")
    if suffix not in IMAGE_SUFFIXES:
        known = ", ".join(s[1:] for s in sorted(IMAGE_SUFFIXES))
        raise InputError(f"--format is {image_format!r}: expected one of {known}")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, expected a folder as x and y are")
    if out.exists() and (out.samefile(x) or out.samefile(y)):
        raise InputError(f"{out}: is the folder of a source; choose another --out")
    pairs = find_pairs(x, y)
    return pairs, {pair.name: out / f"{pair.name}{suffix}" for pair in pairs}


def prompt_shift_of(text: str, fuser: Fuser) -> float | Map:
    """beta as a number, or a map from a painted mask."""
    path = Path(text)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return parse_number(text, "--prompt-shift")
    image = read_image(path)
    if image.dtype != np.uint8:
        raise InputError(
            f"{path}: holds {image.dtype}, expected an 8-bit mask (black -0.5, 128 none, white +0.5)"
        )
    mask = to_frame(image, str(path), 1)[..., 0]
    if mask.shape not in (fuser.size, fuser.grid):
        (height, width), (gh, gw) = fuser.size, fuser.grid
        raise InputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, expected {width}x{height} (the frame) "
            f"or {gw}x{gh} (one pixel per token)"
        )
    token = None if fuser.bundle.fit == "resize" else fuser.bundle.token_pixels
    return pool_to_grid(mask_to_shift(mask), fuser.grid, token)


Sources = tuple[NDArray[Any], NDArray[Any]]


def _read(fuser: Fuser, pair: PairPaths) -> Sources:
    """Both images, uint8 or uint16, in the bundle's channel order."""
    flip = fuser.bundle.channel_order == "bgr"
    images = []
    for path in (pair.x, pair.y):
        image = read_image(path)
        images.append(image[..., ::-1] if flip and image.ndim == 3 else image)
    x, y = images
    if x.shape[:2] != y.shape[:2]:
        raise InputError(
            f"{pair.x} is {x.shape[1]}x{x.shape[0]} and {pair.y} {y.shape[1]}x{y.shape[0]}: "
            f"expected two registered images of one size"
        )
    return x, y


def _chunks(
    fuser: Fuser, pairs: list[PairPaths], report: _Report, advance: Any
) -> Iterator[list[tuple[PairPaths, Sources]]]:
    """Readable pairs in groups of the bundle's batch, all of a group of one shape."""
    chunk: list[tuple[PairPaths, Sources]] = []
    for pair in pairs:
        try:
            sources = _read(fuser, pair)
        except InputError as error:
            report.failed.append({"name": pair.name, "error": str(error)})
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
    chunk: list[tuple[PairPaths, Sources]],
    targets: dict[str, Path],
    scale: float | None,
    shift: float | Map | None,
    report: _Report,
) -> None:
    began = time.perf_counter()
    if len(chunk) == 1:
        fused = [fuser(*chunk[0][1], scale=scale, shift=shift)]
    else:
        x, y = (np.stack([s[i] if s[i].ndim == 3 else s[i][..., None] for _, s in chunk]) for i in (0, 1))
        fused = list(fuser(x, y, scale=scale, shift=shift))
    seconds = time.perf_counter() - began
    for (pair, _), image in zip(chunk, fused, strict=True):
        rgb = image[..., ::-1] if fuser.bundle.channel_order == "bgr" else image
        write_image(targets[pair.name], np.ascontiguousarray(rgb))
        report.outputs.append(str(targets[pair.name]))
        report.seconds.append(seconds / len(chunk))


def _fuse_folder(
    fuser: Fuser,
    pairs: list[PairPaths],
    targets: dict[str, Path],
    scale: float | None,
    shift: float | Map | None,
) -> _Report:
    report = _Report()
    folder = next(iter(targets.values())).parent
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from error
    try:
        with progress_bar("fusing", len(pairs)) as advance:
            for chunk in _chunks(fuser, pairs, report, advance):
                try:
                    _fuse_chunk(fuser, chunk, targets, scale, shift, report)
                except InputError as error:
                    for pair, _ in chunk:
                        if str(targets[pair.name]) not in report.outputs:
                            report.failed.append({"name": pair.name, "error": f"{pair.name}: {error}"})
                advance(len(chunk))
    finally:
        if not report.outputs:
            with contextlib.suppress(OSError):  # somebody else may have put something there
                for empty in made:
                    empty.rmdir()
    return report
