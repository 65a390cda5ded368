"""`tcmoa stream`: two videos, cameras or URLs in, one fused stream out."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.cli.fuse_prompt import SHIFT_FORM
from tcmoa_runtime.cli.options import BundleArgument, JsonOption, TextForm, parse_number, takes_options
from tcmoa_runtime.cli.printing import console, is_interactive, print_json, print_line, print_message
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.cli.stream_summary import Ended, format_summary, show_progress, summarize
from tcmoa_runtime.cli.token import check_token_is_known
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.one_source import OneSourceOptions
from tcmoa_runtime.options.page import PAGE_GROUP, PageOptions
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.options.source import RawFormat, SourceOptions
from tcmoa_runtime.options.stream import OUTPUT_GROUP, Offset, StreamOptions
from tcmoa_runtime.stop_signals import handled_stop_signals
from tcmoa_runtime.streams.interfaces import Sink
from tcmoa_runtime.streams.keyboard import HELP, HELP_WITHOUT_PROMPT, Keyboard, is_available
from tcmoa_runtime.streams.setup import StreamSetup
from tcmoa_runtime.streams.stream import Stream
from tcmoa_runtime.web.address import Address

if TYPE_CHECKING:
    from tcmoa_runtime.streams.page.sink import Page


def _parse_offset(text: str) -> Offset:
    """Parse a number of seconds, `auto` or `timestamps`."""
    if text == "auto":
        return "auto"
    if text == "timestamps":
        return "timestamps"
    try:
        return parse_number(text)
    except InputError:
        raise InputError(f"{text!r}; expected seconds, auto or timestamps") from None


def _parse_patience(text: str) -> float:
    """Parse a number of seconds, or `inf`."""
    return math.inf if text == "inf" else parse_number(text)


_RAW_FORM = TextForm(RawFormat.parse, str, "WxH:PIXELS")
_OFFSET_FORM = TextForm(_parse_offset, lambda value: f"{value:g}", "SECONDS|auto|timestamps")
_PATIENCE_FORM = TextForm(_parse_patience, lambda value: f"{value:g}", "SECONDS")


@takes_options(PageOptions, name="page_options")
@takes_options(FuserOptions, name="fuser_options", forms={"prompt_shift": SHIFT_FORM})
@takes_options(SinkOptions, name="sink_options")
@takes_options(StreamOptions, forms={"offset": _OFFSET_FORM})
@takes_options(OneSourceOptions, name="one_source", forms={"raw_x": _RAW_FORM, "raw_y": _RAW_FORM})
@takes_options(
    SourceOptions,
    name="source_options",
    flags={"live": ("--live/--every-frame",)},
    forms={"reconnect": _PATIENCE_FORM},
)
def stream(
    options: StreamOptions,
    source_options: SourceOptions,
    one_source: OneSourceOptions,
    sink_options: SinkOptions,
    fuser_options: FuserOptions,
    page_options: PageOptions,
    bundle: BundleArgument,
    x: Annotated[
        str,
        typer.Argument(
            help="First source: a video file, a folder of images or a pattern (%04d.png), /dev/videoN, a URL "
            "(rtsp, http, udp, rtp, srt, tcp), simulated://x for a simulated camera, or - for raw video on stdin."
        ),
    ],
    y: Annotated[str, typer.Argument(help="Second source, as x.")],
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            "-o",
            help="Output: a video file, a folder or pattern of images, a URL to push to, window, or - for raw video "
            "on stdout. {time} in a name is the start of the stream in UTC. Can be repeated.",
            rich_help_panel=OUTPUT_GROUP,
        ),
    ] = None,
    copy_x: Annotated[
        bool,
        typer.Option(
            "--copy-x",
            help="Copy the audio and metadata of x, a file, into the output.",
            rich_help_panel=OUTPUT_GROUP,
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Write one line of JSON for each output frame.",
            rich_help_panel=OUTPUT_GROUP,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TCMOA_TOKEN",
            help="Token that browsers need for the page; generated if the address is not on loopback.",
            rich_help_panel=PAGE_GROUP,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Fuse two videos, cameras or network streams into one, paired by time.

    From files, every frame of the leading source is fused. Of live sources the newest frames win, so that the output
    never falls behind. Ctrl-C, SIGTERM and the key q end the stream with complete files.

    Examples:

        tcmoa stream nano-vif simulated://x simulated://y --page 127.0.0.1:8080
        tcmoa stream night-640x480 visible.mp4 infrared.mp4 -o fused.mp4
        tcmoa stream night-640x480 /dev/video0 rtsp://camera/thermal --page 127.0.0.1:8080 --reuse 2 --deflicker 0.5
    """
    outs, page_address = out or [], page_options.page_address
    _check_outputs(outs, has_other=bool(log or page_address or as_json), as_json=as_json)
    setup = StreamSetup(
        bundle=bundle,
        x=x,
        y=y,
        outs=outs,
        log=log,
        copy_x=copy_x,
        stream=options,
        sources=source_options,
        one_source=one_source,
        sink=sink_options,
        fuser=fuser_options,
    ).started_at(datetime.now(UTC))
    setup.check_raw_formats()
    sinks = setup.open_sinks()
    with setup.load_fuser() as fuser, contextlib.ExitStack() as stack:
        prompt = setup.read_prompt(fuser)
        page = None
        if page_address is not None:
            page = stack.enter_context(_open_page(page_address, token))
            sinks.append(page)
        running = stack.enter_context(contextlib.closing(_open_stream(setup, fuser, sinks, prompt)))
        if page is not None:
            print_message(f"page: {page.url}")
        ended = _run(running, reads_keys="-" not in (x, y))
        summary = summarize(running, ended)
    if as_json:
        print_json(summary)
    elif "-" not in outs and running.has_begun:
        print_line(format_summary(summary))
    if running.error is not None:
        raise running.error
    return 0


def _check_outputs(outs: Sequence[str], *, has_other: bool, as_json: bool) -> None:
    if not outs and not has_other:
        raise InputError(
            "no output requested",
            remedy="Give {out}, {page} or {log}, or {json} for the statistics alone.",
            settings={"out": ..., "page": ..., "log": ..., "json": ...},
        )
    if outs.count("-") > 1 or (as_json and "-" in outs):
        raise InputError("two outputs on stdout; expected raw video (-o -) once, or --json")


def _open_page(address: Address, token: str | None) -> contextlib.closing[Page]:
    from tcmoa_runtime.streams.page.sink import Page

    check_token_is_known(token, address)
    return contextlib.closing(Page(str(address), token=token))


def _open_stream(setup: StreamSetup, fuser: Fuser, sinks: Sequence[Sink], prompt: Prompt) -> Stream:
    with status_line("offset" if setup.stream.offset == "auto" else "stream") as on_message:
        opened = setup.open_stream(fuser, sinks, prompt, on_message)
    estimate = opened.offset_estimate
    if estimate is not None:
        print_message(
            f"offset {estimate.offset:+.3f} s (correlation {estimate.score:.2f}, {estimate.margin:.2f} above the next "
            f"best)"
        )
    return opened


def _run(stream: Stream, *, reads_keys: bool) -> Ended:
    """Run a stream to its end, with a line of progress, keys and signals; errors are left in `stream.error`."""
    stopped = threading.Event()

    def stop(_signal: object = None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        stream.stop()

    with handled_stop_signals(stop), contextlib.ExitStack() as stack:
        if reads_keys and is_interactive() and is_available():
            console.print(HELP if stream.control.has_prompt else HELP_WITHOUT_PROMPT, markup=False)
            stack.enter_context(Keyboard(stream.control, stop))
        stack.enter_context(show_progress(stream))
        try:
            stream.run()
        except TcmoaError:
            return "error"
    return "stopped" if stopped.is_set() else "end"
