"""`tcmoa fuse`: fuse two images, or all pairs of a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, get_args

import typer

from tcmoa_runtime.cli.fuse_folder import fuse_chunk, fuse_folder, read_sources
from tcmoa_runtime.cli.fuse_prompt import SHIFT_FORM
from tcmoa_runtime.cli.fuse_report import FuseReport
from tcmoa_runtime.cli.options import BundleArgument, JsonOption, TextForm, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_report
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.images import check_writable
from tcmoa_runtime.options.fuse import FuseOptions, FuseSources, ImageFormat
from tcmoa_runtime.pair_table import TABLE_SUFFIXES
from tcmoa_runtime.pairs import PairPaths, find_pairs, find_source_pairs
from tcmoa_runtime.source_files import SourceFiles

_FORMAT_FORM = TextForm(
    lambda text: text.lower().removeprefix("."),
    str,
    "|".join(get_args(ImageFormat)),  # .PNG is png, too
)


@takes_options(FuseSources, name="sources", arguments=("x", "y"))
@takes_options(FuseOptions, forms={"prompt_shift": SHIFT_FORM, "format": _FORMAT_FORM})
def fuse(
    options: FuseOptions,
    sources: FuseSources,
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The fused image, or a folder for fused images.")],
    as_json: JsonOption = False,
) -> int:
    """Fuse two registered images of one scene, or all pairs of a folder.

    Pairs are files of equal names in two folders, NAME_x.EXT and NAME_y.EXT in one or two folders, what two patterns
    match, or the rows of a CSV file. A second run fuses only what is missing or whose sources have changed.

    Examples:

        tcmoa fuse night-640x480 visible.png infrared.png -o fused.png
        tcmoa fuse night-640x480 visible/ infrared/ -o fused/ --prompt-shift 0.2
        tcmoa fuse night-640x480 pairs/ -o fused/ --x-pattern 'VIS{id}.png' --y-pattern 'IR{id}.png'
    """
    is_single = _names_two_images(sources)
    pairs, targets = _plan_image(sources, out) if is_single else _plan_folder(sources, out, options.format)
    with Fuser.load(
        bundle,
        options.backend,
        threads=options.threads,
        trust_engines=options.trust_engines,
        fit=options.fit or "auto",
        percentiles=options.stretch,
    ) as fuser:
        prompt = Prompt.read(options.prompt_scale, options.prompt_shift)
        prompt.check_for(fuser.bundle)
        report = FuseReport()
        if is_single:
            fuse_chunk(fuser, [(pairs[0], read_sources(pairs[0], fuser))], targets, prompt, report)
        else:
            if fuser.fit in ("exact", "pad"):
                report.fix_fit = "tile" if fuser.bundle.can_tile else "resize"
            report.align_command = _align_command(bundle, sources)
            fuse_folder(fuser, pairs, targets, prompt, options, report)
        backend = fuser.backend.name
    for line in report.describe_failures():
        print_report("error", line)
    if as_json:
        print_json(report.to_json(backend))
    elif report.outputs or not report.failed:
        print_line(_summary(report, out, backend))
    if report.failed:
        raise report.error_for(len(pairs), out)
    return 0


def _summary(report: FuseReport, out: Path, backend: str) -> str:
    """Return the line of a run that wrote something, or found everything written."""
    count, skipped = len(report.outputs), report.skipped or 0
    if not count:
        return f"{skipped} images are in {out} already; nothing to fuse (--overwrite fuses them again)"
    what = report.outputs[0] if count == 1 else f"{count} images in {out}"
    there = f", {skipped} more were there" if skipped else ""
    return f"{what}{there} ({backend}, {report.median_ms():.0f} ms per pair)"


def _names_two_images(sources: FuseSources) -> bool:
    """Whether x and y are two images.

    Raises:
        InputError: A source is missing, or one is a file and one a folder.
    """
    x, y = sources.x, sources.y
    if sources.pairs is not None:
        sources.check_pairs()
        return False
    if x is None:
        raise InputError(
            "no sources; expected two images, or pairs of images",
            remedy="Name x and y, or set {pairs}",
            settings={"pairs": ...},
        )
    if y is None:
        if x.is_dir() or x.suffix.lower() in TABLE_SUFFIXES:
            return False
        raise InputError("no second source; expected another image", subject=x, remedy="Name y after it")
    if x.is_dir() != y.is_dir():
        raise InputError(
            "one file and one folder; expected two images or two folders", subject=f"{x} and {y}"
        )
    if not x.is_dir() and sources.x_pattern is not None:
        raise InputError("given with two images; expected folders", subject="x_pattern")
    return not x.is_dir()


def _plan_image(sources: FuseSources, out: Path) -> tuple[list[PairPaths], dict[str, Path]]:
    """Return the pair and the path of its result, checked before anything is loaded."""
    x, y = sources.x, sources.y
    if x is None or y is None:  # excluded by `_names_two_images`
        raise TypeError("two images were named")
    for source in (x, y):
        if not source.exists():
            raise InputError("no such image file", subject=source)
    SourceFiles((x, y)).check(out)
    return [PairPaths(x.stem, x, y)], {x.stem: check_writable(out)}


def _plan_folder(
    sources: FuseSources, out: Path, image_format: ImageFormat
) -> tuple[list[PairPaths], dict[str, Path]]:
    """Return the pairs and the path of each result, all checked before anything is loaded."""
    if out.exists() and not out.is_dir():
        raise InputError("a file; expected a folder, like x and y", subject=out)
    named = [folder for folder in (sources.x, sources.y, sources.pairs) if folder is not None]
    SourceFiles(named).check(out)
    if sources.x is None:
        pairs = find_source_pairs(sources)
    else:
        pairs = find_pairs(sources.x, sources.y, x_pattern=sources.x_pattern, y_pattern=sources.y_pattern)
    files = [path for pair in pairs for path in (pair.x, pair.y)]
    SourceFiles({path.parent for path in files}).check(out)
    targets = {pair.name: out / f"{pair.name}.{image_format}" for pair in pairs}
    own = SourceFiles(files)
    for target in targets.values():
        own.check(target)
    return pairs, targets


def _align_command(bundle: Path, sources: FuseSources) -> str:
    """Return the command that aligns the sources, which then may have two sizes."""
    if sources.pairs is not None or sources.y is None:
        named = ["--pairs", str(sources.pairs or sources.x)]
    else:
        named = ["--x", str(sources.x), "--y", str(sources.y)]
    if sources.x_pattern is not None and sources.y_pattern is not None:
        named += ["--x-pattern", sources.x_pattern, "--y-pattern", sources.y_pattern]
    return shlex.join(["tcmoa", "calibrate", "align", str(bundle), *named, "-o", f"{bundle.name}-aligned"])
