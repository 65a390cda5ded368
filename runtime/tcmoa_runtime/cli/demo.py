"""`tcmoa demo`: fuse the image pairs that the package ships, with the bundles that it ships."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.printing import print_line
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.demo import CONTACT_SHEET, PROMPT_STRIP, DemoResult, run_demo
from tcmoa_runtime.ready_bundles import READY_NAMES


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images.")] = Path("tcmoa-demo"),
) -> None:
    """Fuse small pairs of images that the package ships, with its ready bundles; takes some seconds.

    Writes the sources, the fused images, the prompts, a contact sheet and a prompt strip. Needs neither PyTorch nor a
    network.

    Examples:

        tcmoa demo --out demo-out
    """
    start = time.monotonic()
    with status_line("demo") as on_message:
        result = run_demo(out, on_message)
    _print_summary(result, time.monotonic() - start)


def _print_summary(result: DemoResult, seconds: float) -> None:
    names = list(READY_NAMES)
    with_names = ", ".join(names)
    backends = ", ".join(result.backends)
    print_line(f"Fused {len(result.pairs)} pairs with {with_names} in {seconds:.1f} s ({backends}).")
    print_line(f"{result.folder / CONTACT_SHEET}: the sources, the fused image and the prompt of each pair")
    print_line(f"{result.folder / PROMPT_STRIP}: what scale and shift of the prompt change")
    print_line(f"{result.folder / result.pairs[0]}_x.png, _y.png, _fused.png, _prompt.png, ...: the images")
    x, y = (shlex.quote(str(result.folder / f"{result.pairs[0]}_{source}.png")) for source in "xy")
    print_line()
    print_line("Next, with images of your own in place of these:")
    print_line(f"  tcmoa fuse {names[0]} {x} {y} -o fused.png")
    print_line(f"  tcmoa fuse {names[0]} x/ y/ -o fused/  # two folders of equal names")
    print_line("  tcmoa models")
