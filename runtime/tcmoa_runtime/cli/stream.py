"""`tcmoa stream`: two videos, cameras or URLs in, one fused stream out."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import typer

from tcmoa_runtime.backends.pick import BACKENDS
from tcmoa_runtime.cli.fuse import prompt_shift_of, stretch_percentiles
from tcmoa_runtime.cli.progress import console, print_json, status_line
from tcmoa_runtime.cli.stream_summary import progress, summary, told
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.images import DEFAULT_PERCENTILES
from tcmoa_runtime.prompts import parse_number
from tcmoa_runtime.streams.control import RAMP_SECONDS
from tcmoa_runtime.streams.interfaces import Side, Sink, Source
from tcmoa_runtime.streams.pairing import OnLoss, Pairing
from tcmoa_runtime.streams.stats import Stats
from tcmoa_runtime.streams.stream import Offset, Stream

if TYPE_CHECKING:
    from tcmoa_runtime.streams.page.sink import Page

_PANEL_SOURCES: Final = "Sources"
_PANEL_PAIRING: Final = "Pairing"
_PANEL_OUTPUT: Final = "Output"
_PANEL_CONTROL: Final = "Control"


def stream(
    bundle: Annotated[Path, typer.Argument(help="The bundle, as `tcmoa export` wrote it.")],
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
            help="Where to: a video file, a folder or pattern of images, a URL to push to, window, or - for raw "
            "video on stdout. May be given several times.",
            rich_help_panel=_PANEL_OUTPUT,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help=f"auto (an engine that runs here, else the fastest installed), {', '.join(BACKENDS)}."
        ),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the backend; all when not given.")
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Adapt frames of another size than the bundle's.")
    ] = False,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--every-frame",
            help="Newest frames win, or every frame comes out; by the kind of source when not given.",
            rich_help_panel=_PANEL_SOURCES,
        ),
    ] = None,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime", help="Play files at their own pace, as if cameras.", rich_help_panel=_PANEL_SOURCES
        ),
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="FPS",
            help="Of image sequences and raw video (25), and asked of cameras; as 25 or 30000/1001.",
            rich_help_panel=_PANEL_SOURCES,
        ),
    ] = None,
    rate_y: Annotated[
        str | None,
        typer.Option("--rate-y", metavar="FPS", help="The same for y alone.", rich_help_panel=_PANEL_SOURCES),
    ] = None,
    raw_x: Annotated[
        str | None,
        typer.Option(
            "--raw-x",
            metavar="WxH:FORMAT",
            help="What comes on stdin, as 640x480:gray16le.",
            rich_help_panel=_PANEL_SOURCES,
        ),
    ] = None,
    raw_y: Annotated[
        str | None,
        typer.Option("--raw-y", metavar="WxH:FORMAT", help="The same for y.", rich_help_panel=_PANEL_SOURCES),
    ] = None,
    option_x: Annotated[
        list[str] | None,
        typer.Option(
            "--option-x",
            metavar="NAME=VALUE",
            help="Option of FFmpeg for x, as rtsp_transport=tcp; format=NAME sets its input format.",
            rich_help_panel=_PANEL_SOURCES,
        ),
    ] = None,
    option_y: Annotated[
        list[str] | None,
        typer.Option(
            "--option-y", metavar="NAME=VALUE", help="The same for y.", rich_help_panel=_PANEL_SOURCES
        ),
    ] = None,
    reconnect: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="How long a live source may be away before it is given up; inf for never.",
            rich_help_panel=_PANEL_SOURCES,
        ),
    ] = "30",
    stretch: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH",
            help="Percentiles of 10- to 16-bit frames that become black and white.",
            rich_help_panel=_PANEL_SOURCES,
        ),
    ] = f"{DEFAULT_PERCENTILES[0]:g},{DEFAULT_PERCENTILES[1]:g}",
    lead: Annotated[
        str,
        typer.Option(help="The source whose frames set the pace: x or y.", rich_help_panel=_PANEL_PAIRING),
    ] = "x",
    offset: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="Added to the times of the other source; auto measures it from what moves, timestamps takes "
            "both files' times as of one clock.",
            rich_help_panel=_PANEL_PAIRING,
        ),
    ] = "0",
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="A partner farther away in time is lost; by the frame rates when not given.",
            rich_help_panel=_PANEL_PAIRING,
        ),
    ] = None,
    on_loss: Annotated[
        str,
        typer.Option(
            help="While a source is lost: hold its last frame (then pass), pass the other alone, pass-x, pass-y "
            "(that one only), or stop.",
            rich_help_panel=_PANEL_PAIRING,
        ),
    ] = "hold",
    hold: Annotated[
        str, typer.Option(metavar="SECONDS", help="How long to hold.", rich_help_panel=_PANEL_PAIRING)
    ] = "2",
    wait: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="How long a live frame may wait for a nearer partner that is due.",
            rich_help_panel=_PANEL_PAIRING,
        ),
    ] = "0",
    codec: Annotated[
        str | None,
        typer.Option(
            help="h264, hevc, ffv1, mjpeg, or another encoder of FFmpeg.", rich_help_panel=_PANEL_OUTPUT
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(help="CRF of h264 and hevc, or JPEG quality.", rich_help_panel=_PANEL_OUTPUT),
    ] = None,
    view: Annotated[
        str,
        typer.Option(help="fused, or a comparison: side-by-side, blend.", rich_help_panel=_PANEL_OUTPUT),
    ] = "fused",
    copy_x: Annotated[
        bool,
        typer.Option(
            "--copy-x", help="Copy the audio and metadata of x, a file.", rich_help_panel=_PANEL_OUTPUT
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl", help="A line of JSON for each output frame.", rich_help_panel=_PANEL_OUTPUT
        ),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve a page that shows and steers the stream, as 127.0.0.1:8080.",
            rich_help_panel=_PANEL_CONTROL,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TCMOA_TOKEN",
            help="What browsers of the page must have; made up where it is not on loopback.",
            rich_help_panel=_PANEL_CONTROL,
        ),
    ] = None,
    prompt_scale: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help="alpha of Eq. 8: 0 = equal shares, above 1 = sharper choice.",
            rich_help_panel=_PANEL_CONTROL,
        ),
    ] = None,
    prompt_shift: Annotated[
        str | None,
        typer.Option(
            metavar="B|MASK.png",
            help="beta of Eq. 8: above 0 favours x, below 0 y; or a grey image: black -0.5, 128 none, white +0.5.",
            rich_help_panel=_PANEL_CONTROL,
        ),
    ] = None,
    ramp: Annotated[
        str,
        typer.Option(
            metavar="SECONDS", help="How long a change of the prompt takes.", rich_help_panel=_PANEL_CONTROL
        ),
    ] = f"{RAMP_SECONDS:g}",
    steady: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="Take flicker out where nothing moves, over so long; 0.5 is a good choice, 0 is off.",
            rich_help_panel=_PANEL_OUTPUT,
        ),
    ] = "0",
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="LEVELS",
            help="Put the last fused picture out again while no 8x8 pixels of either source change by more grey "
            "levels in the mean; 0 while nothing changes at all. Off when not given.",
            rich_help_panel=_PANEL_OUTPUT,
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Stop after so many output frames.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the stats as one JSON object.")] = False,
) -> int:
    """Fuse two videos, cameras or network streams into one, paired by time.

    From files every frame of the leading source comes out. Of live sources the newest wins, and nothing piles up.
    Ctrl-C, SIGTERM and q end it with every file finished.
    """
    outs = out or []
    if not (outs or log or as_json or page):
        raise InputError(
            "nothing would come of it: give --out, --page, --log, or --json for the stats alone"
        )
    if x == y == "-":
        raise InputError("x and y are both -: only one source can come on stdin")
    if outs.count("-") > 1 or (as_json and "-" in outs):
        raise InputError("stdout can take one thing: raw video (-o -) once, or --json")
    pairing = Pairing(
        lead=cast(Side, lead),  # checked there
        tolerance=None if tolerance is None else parse_number(tolerance, "--tolerance"),
        on_loss=cast(OnLoss, on_loss),
        hold=parse_number(hold, "--hold"),
        wait=parse_number(wait, "--wait"),
    )
    stats = Stats()
    with (
        Fuser.load(bundle, backend, threads=threads, resize=resize) as fuser,
        contextlib.ExitStack() as stack,
    ):
        scale = None if prompt_scale is None else parse_number(prompt_scale, "--prompt-scale")
        shift = None if prompt_shift is None else prompt_shift_of(prompt_shift, fuser)
        options = {
            side: _source_options(
                fuser,
                live=live,
                realtime=realtime,
                rate=given_rate,
                raw=raw,
                ffmpeg=ffmpeg or [],
                reconnect=reconnect,
                stretch=stretch,
                side=side,
            )
            for side, given_rate, raw, ffmpeg in (
                ("x", rate, raw_x, option_x),
                ("y", rate_y or rate, raw_y, option_y),
            )
        }
        sinks = [_sink(text, codec, quality, view, x if copy_x else None) for text in outs]
        if log is not None:
            from tcmoa_runtime.streams.frame_log import FrameLog

            sinks.append(FrameLog(log))
        shown: Page | None = None
        if page is not None:
            from tcmoa_runtime.streams.page.sink import Page

            shown = stack.enter_context(contextlib.closing(Page(page, token=token)))
            sinks.append(shown)
        clock_offset = _offset(offset, x, y, options, pairing.lead)
        sources = _open_sources(x, y, options)
        running = stack.enter_context(
            contextlib.closing(
                Stream(
                    fuser,
                    sources["x"],
                    sources["y"],
                    pairing=pairing,
                    offset=clock_offset,
                    sinks=sinks,
                    ramp=parse_number(ramp, "--ramp"),
                    frames=frames,
                    reuse=None if reuse is None else parse_number(reuse, "--reuse"),
                    steady=parse_number(steady, "--steady"),
                    stats=stats,
                )
            )
        )
        if scale is not None or shift is not None:
            running.control.set(scale=scale, shift=shift, ramp=0)
        if shown is not None:
            console.print(f"page: {shown.url}", markup=False, soft_wrap=True)
        ended = _run(running, stats, steer="-" not in (x, y))
        result = summary(running, stats, fuser, ended, clock_offset)
    if as_json:
        print_json(result)
    elif "-" not in outs:
        print(told(result))
    for note in running.notes:
        console.print(f"tcmoa: note: {note}", markup=False, soft_wrap=True)
    if running.error is not None:
        raise running.error
    return 0


def _rate(text: str | None, option: str) -> Fraction | None:
    if text is None:
        return None
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{option} is {text!r}: expected frames a second, as 25 or 30000/1001") from None
    if not 0 < value <= 10_000:
        raise InputError(f"{option} is {text!r}: expected frames a second, above 0")
    return value


def _ffmpeg_options(given: list[str], option: str) -> dict[str, str]:
    found = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not (name and mark):
            raise InputError(f"{option} is {text!r}: expected NAME=VALUE")
        found[name] = value
    return found


def _source_options(
    fuser: Fuser,
    *,
    live: bool | None,
    realtime: bool,
    rate: str | None,
    raw: str | None,
    ffmpeg: list[str],
    reconnect: str,
    stretch: str,
    side: str,
) -> Any:
    from tcmoa_runtime.streams.sources import RawFormat, SourceOptions

    options = _ffmpeg_options(ffmpeg, f"--option-{side}")
    away = math.inf if reconnect == "inf" else parse_number(reconnect, "--reconnect")
    return SourceOptions(
        channel_order="bgr" if fuser.bundle.channel_order == "bgr" else "rgb",
        rate=_rate(rate, "--rate"),
        raw=None if raw is None else RawFormat.parse(raw),
        live=live,
        realtime=realtime,
        percentiles=stretch_percentiles(stretch),
        format=options.pop("format", None),
        ffmpeg=options,
        reconnect_seconds=away,
    )


def _open_sources(x: str, y: str, options: dict[str, Any]) -> dict[Side, Source]:
    from tcmoa_runtime.streams.sources import open_source

    first = open_source(x, options["x"])
    try:
        return {"x": first, "y": open_source(y, options["y"])}
    except BaseException:
        first.close()
        raise


def _sink(text: str, codec: str | None, quality: int | None, view: str, copy_from: str | None) -> Sink:
    from tcmoa_runtime.streams.sinks import SinkOptions, open_sink

    source = None if copy_from is None else Path(copy_from)
    return open_sink(text, SinkOptions(codec=codec, quality=quality, view=view, copy_from=source))


def _offset(text: str, x: str, y: str, options: dict[str, Any], lead: Side) -> Offset:
    if text == "timestamps":
        return "timestamps"
    if text != "auto":
        return parse_number(text, "--offset")
    if "-" in (x, y):
        raise InputError(
            "--offset auto looks at both sources first, and stdin comes only once; give it in seconds"
        )
    from tcmoa_runtime.streams.offset import measure_offset

    with status_line("offset") as say, contextlib.ExitStack() as stack:
        say("looking at what moves in both sources")
        sources = _open_sources(x, y, options)
        for source in sources.values():
            stack.callback(source.close)
        found = measure_offset(sources["x"], sources["y"], lead=lead)
    console.print(
        f"offset {found.offset:+.3f} s (correlation {found.score:.2f}, {found.lead:.2f} above the next best)",
        markup=False,
    )
    return round(found.offset, 4)


def _run(running: Stream, stats: Stats, *, steer: bool) -> Literal["end", "stopped", "error"]:
    """Run to the end, with a progress line, keys and signals; errors are left in `running.error`."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        running.stop()

    from tcmoa_runtime.streams.keyboard import HELP, Keyboard, available

    keys = steer and console.is_terminal and available()
    with _signals(stop), contextlib.ExitStack() as stack:
        if keys:
            console.print(HELP, markup=False)
            stack.enter_context(Keyboard(running.control, stop))
        stack.enter_context(progress(stats))
        try:
            running.run()
        except TcmoaError:
            return "error"
    return "stopped" if stopped.is_set() else "end"


@contextlib.contextmanager
def _signals(handler: Any) -> Iterator[None]:
    """SIGINT and SIGTERM end the stream in good order; a second one at once."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
