"""`tcmoa wrap`: make a bundle of a fusion network of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import (
    TextForm,
    flag_of,
    given_options,
    parse_names,
    parse_number,
    takes_options,
)
from tcmoa_runtime.cli.printing import print_line
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.cli.wrap_try import try_wrap
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.wrap import Conventions, WrapOptions

_TRY = "Trying"

_NUMBERS = TextForm(
    lambda text: tuple(parse_number(part) for part in parse_names(text)),
    lambda values: ",".join(f"{value:g}" for value in values),
    "NUMBER,...",
)


_SWITCHES = {
    name: (f"{flag_of(name)}/{flag_of('no_' + name)}",)
    for name in ("luma_in_8_bits", "stretch_in", "pad_always", "normalize_weights")
}
"""Each can be turned off too, where a TOML file has turned it on."""


@takes_options(Conventions, name="conventions", flags=_SWITCHES, forms={"mean": _NUMBERS, "std": _NUMBERS})
@takes_options(WrapOptions, flags={"conventions_file": ("--conventions",)})
def wrap(
    context: typer.Context,
    options: WrapOptions,
    conventions: Conventions,
    network: Annotated[Path, typer.Argument(help="The network, an ONNX file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the new bundle.", show_default=False)
    ] = None,
    is_trial: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Wrap nothing: run the likely ones of the conventions that are not given on pairs, and show pictures, "
            "scores and the command of each, best first.",
            rich_help_panel=_TRY,
        ),
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Contact sheet of --try; NET-try.png in the current folder if not given.",
            rich_help_panel=_TRY,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was tried as one JSON object.", rich_help_panel=_TRY)
    ] = False,
) -> None:
    """Make a bundle of a fusion network of others: IFCNN, DenseFuse, SeAFusion, or one that you trained.

    What the network itself says is read; what surrounds it, e.g. the range of its numbers, is stated by options or by a
    TOML file beside it. The bundle is compared with the network before it is written; one that differs is refused.

    With --try nothing is written but a contact sheet: a wrong range or order is the usual mistake, and it gives a
    plausible gray.

    Examples:

        tcmoa wrap net.onnx --task vif --try
        tcmoa wrap seafusion.onnx --task vif --size 640x480 --out night
        tcmoa wrap ifcnn.onnx --task mff --size 520x520 --conventions ifcnn.toml --out focus
        tcmoa wrap net.onnx --task vif --size 640x480 --range-in 0..255 --range-out 0..255 --color-out gray --out gray
    """
    options = replace(options, conventions=conventions, overrides=given_options(context, Conventions))
    if is_trial:
        try_wrap(network, options, out, sheet, as_json)
        return
    if sheet is not None or as_json:
        raise InputError(
            "given without --try; expected both", subject="--json" if sheet is None else "--sheet"
        )
    if out is None:
        raise InputError("none given; expected the folder of the new bundle", subject="--out")
    wrapping = require("tcmoa_export.wrap.wrapping", "wrap", "export")
    with _hint_at_try(), status_line("wrap") as on_message:
        report = wrapping.wrap_network(network, options, out, on_message=on_message)
    for line in report.read:
        print_line(f"{network}: {line}")
    print_line(f"{out}: {report.describe()}")


@contextmanager
def _hint_at_try() -> Iterator[None]:
    """Mention --try where conventions are asked for."""
    try:
        yield
    except InputError as error:
        if not hasattr(
            error, "questions"
        ):  # tcmoa_export.wrap.questions.QuestionsError, which needs the extra
            raise
        raise InputError(
            error.problem,
            subject=error.subject,
            remedy=f"{error.remedy}, or see what likely ones give with --try",
            settings=error.settings,
        ) from error
