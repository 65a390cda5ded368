"""`tcmoa stream`: two videos, cameras or URLs in, one fused stream out."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.cli.fuse_prompt import SHIFT_FORM, Prompt
from tcmoa_runtime.cli.options import BundleArgument, JsonOption, TextForm, parse_number, takes_options
from tcmoa_runtime.cli.printing import console, print_json, print_line, print_message
from tcmoa_runtime.cli.progress import status_line
from tcmoa_runtime.cli.stream_summary import Ended, format_summary, show_progress, summarize
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.option import Option
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.options.source import SOURCES_GROUP, RawFormat, SourceOptions
from tcmoa_runtime.options.stream import OUTPUT_GROUP, Offset, StreamOptions
from tcmoa_runtime.stop_signals import handled_stop_signals
from tcmoa_runtime.streams.frame_log import FrameLog
from tcmoa_runtime.streams.interfaces import Sink
from tcmoa_runtime.streams.keyboard import HELP, HELP_WITHOUT_PROMPT, Keyboard, is_available
from tcmoa_runtime.streams.overwriting import check_outputs, path_of_source
from tcmoa_runtime.streams.sinks import open_sink
from tcmoa_runtime.streams.stream import Stream
from tcmoa_runtime.typing import SourceName

if TYPE_CHECKING:
    from tcmoa_runtime.streams.page.sink import Page

_PAGE_GROUP = "Live page"


@dataclass(frozen=True, kw_only=True)
class OneSourceOptions:
    """Options of one source, in place of or beside those of both sources."""

    rate_y: Annotated[
        Fraction | None, Option("Frames per second of y, if different from x.", group=SOURCES_GROUP)
    ] = None
    raw_x: Annotated[
        RawFormat | None,
        Option("Format of raw video on stdin as x, e.g. 640x480:gray16le.", group=SOURCES_GROUP),
    ] = None
    raw_y: Annotated[RawFormat | None, Option("Format of raw video on stdin as y.", group=SOURCES_GROUP)] = (
        None
    )
    option_x: Annotated[
        list[str],
        Option(
            "Option of FFmpeg for x, e.g. rtsp_transport=tcp; format=NAME sets the input format. Can be repeated.",
            group=SOURCES_GROUP,
            metavar="NAME=VALUE",
        ),
    ] = field(default_factory=list)
    option_y: Annotated[
        list[str],
        Option("Option of FFmpeg for y. Can be repeated.", group=SOURCES_GROUP, metavar="NAME=VALUE"),
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check every field; raises InputError whose subject is the field's name."""
        try:
            SourceOptions(rate=self.rate_y)
        except InputError as error:
            raise error.with_subject("rate_y") from error
        _parse_settings(self.option_x, "option_x")
        _parse_settings(self.option_y, "option_y")

    def apply_to(self, options: SourceOptions, side: SourceName) -> SourceOptions:
        """Return the options of one source from those of both."""
        if side == "x":
            return replace(options, raw=self.raw_x, ffmpeg=_parse_settings(self.option_x, "option_x"))
        ffmpeg = _parse_settings(self.option_y, "option_y")
        return replace(options, rate=self.rate_y or options.rate, raw=self.raw_y, ffmpeg=ffmpeg)


def _parse_settings(texts: Sequence[str], subject: str) -> dict[str, str]:
    """Parse a list of NAME=VALUE."""
    settings = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not (name and mark):
            raise InputError(f"{text!r}; expected NAME=VALUE", subject=subject)
        settings[name] = value
    return settings


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
    bundle: BundleArgument,
    x: Annotated[
        str,
        typer.Argument(
            help="First source: a video file, a folder of images or a pattern (%04d.png), /dev/videoN, a URL "
            "(rtsp, http, udp, rtp, srt, tcp), or - for raw video on stdin."
        ),
    ],
    y: Annotated[str, typer.Argument(help="Second source, as x.")],
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            "-o",
            help="Output: a video file, a folder or pattern of images, a URL to push to, window, or - for raw video "
            "on stdout. Can be repeated.",
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
    page: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve a page that shows and controls the stream, e.g. 127.0.0.1:8080.",
            rich_help_panel=_PAGE_GROUP,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TCMOA_TOKEN",
            help="Token that browsers need for the page; generated if the address is not on loopback.",
            rich_help_panel=_PAGE_GROUP,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Fuse two videos, cameras or network streams into one, paired by time.

    From files, every frame of the leading source is fused. Of live sources the newest frames win, so that the output
    never falls behind. Ctrl-C, SIGTERM and the key q end the stream with complete files.

    Examples:

        tcmoa stream night-640x480 visible.mp4 infrared.mp4 -o fused.mp4
        tcmoa stream night-640x480 /dev/video0 rtsp://camera/thermal --page 127.0.0.1:8080 --reuse 2 --deflicker 0.5
    """
    outs = out or []
    _check_outputs(outs, has_other=bool(log or page or as_json), as_json=as_json)
    source_options = replace(source_options, stretch=fuser_options.stretch)
    options = replace(
        options,
        source_x=one_source.apply_to(source_options, "x"),
        source_y=one_source.apply_to(source_options, "y"),
    )
    _check_raw_formats(options, x, y)
    sinks = _open_sinks(outs, replace(sink_options, copy_from=Path(x) if copy_x else None), log)
    mask = fuser_options.prompt_shift if isinstance(fuser_options.prompt_shift, Path) else None
    check_outputs(
        sinks,
        {"source x": path_of_source(x), "source y": path_of_source(y), "bundle": bundle, "mask": mask},
    )
    with _load_fuser(bundle, fuser_options) as fuser, contextlib.ExitStack() as stack:
        prompt = Prompt.read(fuser_options.prompt_scale, fuser_options.prompt_shift)
        prompt.check_for(fuser.bundle)
        if page is not None:
            live_page = stack.enter_context(_open_page(page, token))
            sinks.append(live_page)
        running = stack.enter_context(contextlib.closing(_open_stream(fuser, x, y, options, sinks)))
        if prompt.scale is not None or prompt.shift is not None:
            shift = prompt.shift_for(fuser, running.sources["x"].size)
            running.control.set(scale=prompt.scale, shift=shift, ramp=0)
        if page is not None:
            print_message(f"page: {live_page.url}")
        ended = _run(running, reads_keys="-" not in (x, y))
        summary = summarize(running, ended)
    if as_json:
        print_json(summary)
    elif "-" not in outs:
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


def _check_raw_formats(options: StreamOptions, x: str, y: str) -> None:
    sources: tuple[tuple[SourceName, str], ...] = (("x", x), ("y", y))
    for side, location in sources:
        if location == "-" and options.source(side).raw is None and x != y:
            name = f"raw_{side}"
            raise InputError(
                "raw video without a format",
                subject="-",
                remedy=f"Give {{{name}}}, with its size and pixel format.",
                settings={name: "640x480:gray16le"},
            )


def _load_fuser(bundle: Path, options: FuserOptions) -> Fuser:
    return Fuser.load(
        bundle,
        options.backend,
        threads=options.threads,
        trust_engines=options.trust_engines,
        fit=options.fit or "exact",
        percentiles=options.stretch,
    )


def _open_sinks(outs: Sequence[str], options: SinkOptions, log: Path | None) -> list[Sink]:
    sinks = [open_sink(out, options) for out in outs]
    return sinks if log is None else [*sinks, FrameLog(log)]


def _open_page(address: str, token: str | None) -> contextlib.closing[Page]:
    from tcmoa_runtime.streams.page.sink import Page

    return contextlib.closing(Page(address, token=token))


def _open_stream(fuser: Fuser, x: str, y: str, options: StreamOptions, sinks: Sequence[Sink]) -> Stream:
    if options.offset != "auto" or "-" in (x, y):  # which Stream refuses
        with status_line("stream") as on_message:
            return Stream(fuser, x, y, options, sinks=sinks, on_message=on_message)
    with status_line("offset") as on_message:
        on_message("measuring the motion in both sources")
        opened = Stream(fuser, x, y, options, sinks=sinks, on_message=on_message)
    estimate = opened.offset_estimate
    if estimate is not None:
        console.print(
            f"offset {estimate.offset:+.3f} s (correlation {estimate.score:.2f}, {estimate.margin:.2f} above the next "
            f"best)",
            markup=False,
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
        if reads_keys and console.is_terminal and is_available():
            console.print(HELP if stream.control.has_prompt else HELP_WITHOUT_PROMPT, markup=False)
            stack.enter_context(Keyboard(stream.control, stop))
        stack.enter_context(show_progress(stream))
        try:
            stream.run()
        except TcmoaError:
            return "error"
    return "stopped" if stopped.is_set() else "end"
