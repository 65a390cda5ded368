"""`tcmoa demo`: export and fuse with the included weights and photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.progress import status_line


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for images and bundles.")] = Path(
        "tcmoa-demo"
    ),
) -> None:
    """Export the `tiny` model for all three tasks and fuse pairs made from photographs.

    Examples:

        tcmoa demo --out demo-out
    """
    run_demo = require("tcmoa_export.demo", "demo", "export").run_demo
    with status_line("demo") as on_message:
        written = run_demo(out, on_message)
    for path in written:
        print(path)
