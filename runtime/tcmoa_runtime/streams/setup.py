"""What one stream is made of, as text: a bundle, two sources, outputs, and all options; and how each part is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.one_source import OneSourceOptions
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.options.source import SourceOptions
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.frame_log import FrameLog
from tcmoa_runtime.streams.interfaces import Sink
from tcmoa_runtime.streams.output_locks import OutputLocks
from tcmoa_runtime.streams.overwriting import check_outputs, path_of_source
from tcmoa_runtime.streams.sinks import open_sink
from tcmoa_runtime.streams.stream import Stream
from tcmoa_runtime.typing import OnMessage, SourceName

TIME: Final = "{time}"
"""In the name of an output: the start of the stream, so that each start writes files of its own."""
TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
"""What replaces it, in UTC, e.g. 20260131T142501Z."""


@dataclass(frozen=True, kw_only=True)
class StreamSetup:
    """One stream, before anything of it is opened.

    Attributes:
        bundle: Folder of the bundle, or the name of a ready one.
        x: First source, as `sources.open_source` takes it.
        y: Second source.
        outs: Outputs, as `sinks.open_sink` takes them.
        log: File for one line of JSON for each frame.
        copy_x: Whether audio and metadata of x, a file, are copied into the outputs.
        stream: How the sources are paired and fused.
        sources: How both sources are opened.
        one_source: How one of them is opened.
        sink: How the outputs are encoded.
        fuser: How the bundle is loaded, and the initial prompt.
    """

    bundle: Path
    x: str
    y: str
    outs: Sequence[str] = ()
    log: Path | None = None
    copy_x: bool = False
    stream: StreamOptions = field(default_factory=StreamOptions)
    sources: SourceOptions = field(default_factory=SourceOptions)
    one_source: OneSourceOptions = field(default_factory=OneSourceOptions)
    sink: SinkOptions = field(default_factory=SinkOptions)
    fuser: FuserOptions = field(default_factory=FuserOptions)

    @property
    def stream_options(self) -> StreamOptions:
        """The options of the stream, with those of each source."""
        both = replace(self.sources, stretch=self.fuser.stretch)
        return replace(
            self.stream,
            source_x=self.one_source.apply_to(both, "x"),
            source_y=self.one_source.apply_to(both, "y"),
        )

    @property
    def all_outs(self) -> list[str]:
        """The outputs and the log."""
        return [*self.outs, *([] if self.log is None else [str(self.log)])]

    def started_at(self, time: datetime) -> Self:
        """Return this setup with a time in place of `{time}` in its outputs and log."""
        text = time.astimezone(UTC).strftime(TIME_FORMAT)
        log = None if self.log is None else Path(str(self.log).replace(TIME, text))
        return replace(self, outs=tuple(out.replace(TIME, text) for out in self.outs), log=log)

    def check_raw_formats(self) -> None:
        """Refuse raw video on stdin without a format.

        Raises:
            InputError: The format is missing.
        """
        options = self.stream_options
        sources: tuple[tuple[SourceName, str], ...] = (("x", self.x), ("y", self.y))
        for side, location in sources:
            if location == "-" and options.source(side).raw is None and self.x != self.y:
                name = f"raw_{side}"
                raise InputError(
                    "raw video without a format",
                    subject="-",
                    remedy=f"Give {{{name}}}, with its size and pixel format.",
                    settings={name: "640x480:gray16le"},
                )

    def open_sinks(self) -> list[Sink]:
        """Create the sinks of all outputs; nothing is written yet.

        Raises:
            InputError: An output is wrong, or would overwrite a source, the bundle, the mask or another output.
            MissingError: A package that an output needs is not installed.
        """
        options = replace(self.sink, copy_from=Path(self.x) if self.copy_x else None)
        sinks = [open_sink(out, options) for out in self.outs]
        if self.log is not None:
            sinks.append(FrameLog(self.log))
        mask = self.fuser.prompt_shift if isinstance(self.fuser.prompt_shift, Path) else None
        inputs = {"source x": path_of_source(self.x), "source y": path_of_source(self.y)}
        check_outputs(sinks, {**inputs, "bundle": self.bundle, "mask": mask})
        return sinks

    def load_fuser(self) -> Fuser:
        """Load the bundle; raises like `Fuser.load`."""
        options = self.fuser
        return Fuser.load(
            self.bundle,
            options.backend,
            threads=options.threads,
            trust_engines=options.trust_engines,
            fit=options.fit or "exact",
            percentiles=options.stretch,
        )

    def read_prompt(self, fuser: Fuser) -> Prompt:
        """Read the initial prompt.

        Raises:
            InputError: The mask cannot be used.
            NoPromptError: The network has no prompt.
        """
        prompt = Prompt.read(self.fuser.prompt_scale, self.fuser.prompt_shift)
        prompt.check_for(fuser.bundle)
        return prompt

    def open_stream(
        self,
        fuser: Fuser,
        sinks: Sequence[Sink],
        prompt: Prompt,
        on_message: OnMessage | None = None,
        *,
        locks: OutputLocks | None = None,
    ) -> Stream:
        """Open the sources and set the initial prompt; raises like `Stream`."""
        options = self.stream_options
        opened = Stream(fuser, self.x, self.y, options, sinks=sinks, on_message=on_message, locks=locks)
        try:
            if prompt.scale is not None or prompt.shift is not None:
                shift = prompt.shift_for(fuser, opened.sources["x"].size)
                opened.control.set(scale=prompt.scale, shift=shift, ramp=0)
        except BaseException:
            opened.close()
            raise
        return opened
