"""Options of `tcmoa wrap`: what is wrapped, and the conventions of the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias, get_args, get_origin, get_type_hints

from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.export import MAX_BATCH, MAX_SIDE_PX
from tcmoa_runtime.options.option import Option, check_choices, check_range
from tcmoa_runtime.options.pairs import PAIRS_GROUP, PAIRS_METAVAR, PairOptions
from tcmoa_runtime.options.toml_table import read_toml, unknown_key
from tcmoa_runtime.typing import ChannelOrder, FrameSize, JsonObject

Join: TypeAlias = Literal["separate", "channels", "batch", "depth"]
"""How a network takes the two sources: as two inputs, or as one, joined along an axis."""

SourceOrder: TypeAlias = Literal["xy", "yx"]
"""Which source comes first in the network."""

TensorLayout: TypeAlias = Literal[
    "nchw", "nhwc", "ncwh", "nwhc", "chw", "hwc", "nhw", "hw", "ncdhw", "ndchw", "ndhwc"
]
"""Axes of a tensor: n batch, c channels, d depth, h rows, w columns."""

SourceContent: TypeAlias = Literal["rgb", "bgr", "luma", "gray"]
"""What of a source goes in: its color, its luma, or the one channel of a gray source."""

LumaKind: TypeAlias = Literal["full", "limited", "opencv", "pillow", "matlab"]
"""Luma and chroma of BT.601: in floats (full, limited range), or in 8 bits as libraries round them."""

ValueRange: TypeAlias = Literal["0..1", "0..255", "-1..1", "mean-std"]
"""Numbers that stand for black and white."""

Padding: TypeAlias = Literal["reflect", "symmetric", "repeat", "zero"]
"""What is beyond the edge: mirrored without or with the edge itself, the edge repeated, or zeros."""

PaddingSide: TypeAlias = Literal["around", "end"]
"""Where padding goes: on all sides, or at the bottom and right only."""

SmallFilter: TypeAlias = Literal["antialias", "bilinear", "nearest"]
"""How sources are made smaller: bilinear over all pixels (Pillow), between neighbors (OpenCV), or nearest."""

ColorOut: TypeAlias = Literal["rgb", "bgr", "gray", "chroma-x", "chroma-weighted", "chroma-nearest"]
"""Where the color of the result is from."""

ChromaWeights: TypeAlias = Literal["pixel", "picture"]
"""Whether chroma is weighted by the saturation of each pixel, or of the whole picture."""

OutputKind: TypeAlias = Literal["picture", "weights"]
"""What the network computes: a picture, or weight maps of the sources."""

StretchOut: TypeAlias = Literal["none", "min-max", "max"]
"""Whether the result is stretched by its own minimum and maximum, or by its maximum."""

StretchAt: TypeAlias = Literal["before-color", "after-color"]
"""Whether the result is stretched before color is restored, or after it."""

Rounding: TypeAlias = Literal["nearest", "truncate"]
"""How numbers become 8 bits."""

MAX_MULTIPLE: Final = 64
MAX_BORDER_PX: Final = 256

NETWORK_GROUP: Final = "Network"
INPUT_GROUP: Final = "Conventions: inputs"
OUTPUT_CONVENTIONS_GROUP: Final = "Conventions: output"
BUNDLE_GROUP: Final = "Bundle"


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What surrounds a network: how frames become its inputs, and its output a frame.

    None means that it is read off the network where it can be, and asked for where it cannot.
    """

    inputs: Annotated[
        tuple[str, ...],
        Option(
            "Input of x and input of y, by name; or the one input that takes both.",
            group=INPUT_GROUP,
            metavar="NAME,NAME",
        ),
    ] = ()
    join: Annotated[
        Join | None,
        Option(
            "How the network takes the sources: two inputs, or one, joined along an axis.", group=INPUT_GROUP
        ),
    ] = None
    order: Annotated[
        SourceOrder | None,
        Option("Which source comes first: xy or yx, e.g. yx for infrared before visible.", group=INPUT_GROUP),
    ] = None
    layout: Annotated[
        TensorLayout | None, Option("Axes of the inputs, e.g. nhwc of TensorFlow.", group=INPUT_GROUP)
    ] = None
    small_inputs: Annotated[
        tuple[str, ...],
        Option("Further inputs that take the sources made smaller.", group=INPUT_GROUP, metavar="NAME"),
    ] = ()
    small_side: Annotated[
        int, Option("Shorter side of the smaller sources.", group=INPUT_GROUP, metavar="PIXELS")
    ] = 128
    small_filter: Annotated[SmallFilter, Option("How sources are made smaller.", group=INPUT_GROUP)] = (
        "antialias"
    )
    constant: Annotated[
        tuple[str, ...],
        Option("Values of further inputs, e.g. sigma=0.", group=INPUT_GROUP, metavar="NAME=VALUE,..."),
    ] = ()
    x_content: Annotated[SourceContent | None, Option("What of x goes in.", group=INPUT_GROUP)] = None
    y_content: Annotated[SourceContent | None, Option("What of y goes in.", group=INPUT_GROUP)] = None
    luma: Annotated[
        LumaKind,
        Option(
            "Luma and chroma of BT.601: full or limited range in floats, or 8 bits as opencv, pillow or matlab "
            "round them.",
            group=INPUT_GROUP,
        ),
    ] = "full"
    luma_in_8_bits: Annotated[
        bool,
        Option(
            "Round the luma that goes in to 8 bits, as pictures that are read in gray have, whatever color is restored "
            "with.",
            group=INPUT_GROUP,
        ),
    ] = False
    range_in: Annotated[
        ValueRange | None,
        Option("Range of the inputs; mean-std: minus mean, divided by std.", group=INPUT_GROUP),
    ] = None
    mean: Annotated[
        tuple[float, ...],
        Option(
            "Mean of each channel in 0..1, e.g. 0.485,0.456,0.406.", group=INPUT_GROUP, metavar="NUMBER,..."
        ),
    ] = ()
    std: Annotated[
        tuple[float, ...],
        Option("Deviation of each channel in 0..1.", group=INPUT_GROUP, metavar="NUMBER,..."),
    ] = ()
    stretch_in: Annotated[
        bool,
        Option("Stretch each source by its own minimum and maximum before the range.", group=INPUT_GROUP),
    ] = False
    multiple: Annotated[
        int, Option("The network takes multiples of so many pixels.", group=INPUT_GROUP, metavar="PIXELS")
    ] = 1
    padding: Annotated[
        Padding | None, Option("What is added up to that multiple, or to a fixed size.", group=INPUT_GROUP)
    ] = None
    pad_at: Annotated[
        PaddingSide, Option("Whether all sides are padded, or bottom and right only.", group=INPUT_GROUP)
    ] = "end"
    pad_always: Annotated[
        bool, Option("Pad by a whole multiple where the frame is one already.", group=INPUT_GROUP)
    ] = False
    border: Annotated[
        int, Option("Pixels added on each side in any case.", group=INPUT_GROUP, metavar="PIXELS")
    ] = 0
    output: Annotated[
        tuple[str, ...],
        Option(
            "The output to use, by name; two for the weights of x and of y.",
            group=OUTPUT_CONVENTIONS_GROUP,
            metavar="NAME",
        ),
    ] = ()
    output_kind: Annotated[
        OutputKind,
        Option("Whether it is a picture, or weight maps of the sources.", group=OUTPUT_CONVENTIONS_GROUP),
    ] = "picture"
    normalize_weights: Annotated[
        bool, Option("Divide the weights by their sum.", group=OUTPUT_CONVENTIONS_GROUP)
    ] = False
    output_layout: Annotated[
        TensorLayout | None, Option("Axes of the output.", group=OUTPUT_CONVENTIONS_GROUP)
    ] = None
    range_out: Annotated[
        ValueRange | None, Option("Range of the output, clipped.", group=OUTPUT_CONVENTIONS_GROUP)
    ] = None
    stretch_out: Annotated[
        StretchOut,
        Option("Stretch each result by its own extremes, or by its maximum.", group=OUTPUT_CONVENTIONS_GROUP),
    ] = "none"
    stretch_at: Annotated[
        StretchAt,
        Option(
            "Stretch before color is restored, or after that and clipping.", group=OUTPUT_CONVENTIONS_GROUP
        ),
    ] = "before-color"
    rounding: Annotated[Rounding, Option("How numbers become 8 bits.", group=OUTPUT_CONVENTIONS_GROUP)] = (
        "nearest"
    )
    color_out: Annotated[
        ColorOut | None,
        Option(
            "Color of the result: the network's own (rgb, bgr), gray, or the fused luma with the chroma of x, of both "
            "weighted by saturation, or of the source that is nearer in luma.",
            group=OUTPUT_CONVENTIONS_GROUP,
        ),
    ] = None
    chroma_weights: Annotated[
        ChromaWeights,
        Option("Weigh chroma by the saturation of each pixel or picture.", group=OUTPUT_CONVENTIONS_GROUP),
    ] = "pixel"

    def __post_init__(self) -> None:
        """Check every field by itself; see `check_ranges` for what several fields state together.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        check_range("multiple", self.multiple, 1, MAX_MULTIPLE, "pixels")
        check_range("border", self.border, 0, MAX_BORDER_PX, "pixels")
        check_range("small_side", self.small_side, 1, MAX_SIDE_PX, "pixels")
        self._check_names()
        self._check_mean_and_std()
        self.constants()

    def _check_names(self) -> None:
        for name, most in (("inputs", 2), ("small_inputs", 2), ("output", 2)):
            names = getattr(self, name)
            if len(names) > most or len(set(names)) < len(names):
                raise InputError(
                    f"{', '.join(names)}; expected one name, or two different ones", subject=name
                )

    def _check_mean_and_std(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, 3):
                raise InputError(f"{len(values)} numbers; expected one or three", subject=name)
        if any(value <= 0 for value in self.std):
            raise InputError(f"{min(self.std):g}; expected numbers above 0", subject="std")

    @property
    def _is_mean_used(self) -> bool:
        return "mean-std" in (self.range_in, self.range_out)

    def check_ranges(self) -> None:
        """Check that mean and std are given if, and only if, a range needs them.

        Raises:
            InputError: They are not; the subject is the range or the field.
        """
        if self._is_mean_used and (not self.mean or not self.std):
            raise InputError(
                "needs mean and std; expected both",
                subject="mean-std",
                remedy="Give {mean} and {std} in 0..1",
                settings={"mean": ..., "std": ...},
            )
        if (self.mean or self.std) and not self._is_mean_used:
            raise InputError(
                "given, but no range is mean-std; expected one",
                subject="mean" if self.mean else "std",
                remedy="Use {range_in}, or leave it out",
                settings={"range_in": "mean-std"},
            )

    def constants(self) -> dict[str, tuple[float, ...]]:
        """Return the values of `constant` by input; several values of one input are separated by spaces.

        Raises:
            InputError: An entry is not NAME=VALUE.
        """
        found: dict[str, tuple[float, ...]] = {}
        for entry in self.constant:
            name, mark, text = entry.partition("=")
            try:
                numbers = tuple(_number(part) for part in text.split())
            except ValueError:
                numbers = ()
            if not mark or not name.strip() or not numbers:
                raise InputError(f"{entry!r}; expected NAME=VALUE, e.g. sigma=0", subject="constant")
            found[name.strip()] = numbers
        return found

    def given(self) -> dict[str, object]:
        """Return the fields that differ from their defaults, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def overridden_by(self, other: Conventions, names: Iterable[str] = ()) -> Conventions:
        """Return these conventions with what `other` states in place of theirs.

        A mean and a deviation that no range uses any more are left out.

        Args:
            other: Its fields that differ from their defaults are taken.
            names: Further fields of `other` to take, which may be at their defaults.
        """
        stated = other.given() | {name: getattr(other, name) for name in names}
        found = replace(self, **stated)  # type: ignore[arg-type]  # fields of the same class
        return found if found._is_mean_used else replace(found, mean=other.mean, std=other.std)

    def to_json(self) -> JsonObject:
        """Describe the conventions for bundle.json: what differs from the defaults."""
        return {
            name: list(value) if isinstance(value, tuple) else value  # type: ignore[misc]
            for name, value in self.given().items()
        }

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read conventions from a TOML file whose keys are the names of the fields.

        `[constant]` may be a table of numbers by input.

        Raises:
            InputError: The file cannot be read, a key is unknown, or a value is wrong.
        """
        return cls.from_values(read_toml(path, 'range_in = "0..1"'), path)

    @classmethod
    def from_values(cls, values: Mapping[str, object], subject: object) -> Self:
        """Make conventions from values by name, e.g. of a TOML file or of bundle.json.

        Raises:
            InputError: A key is unknown, or a value is wrong; its subject names `subject` and the key.
        """
        hints = get_type_hints(cls)
        found: dict[str, object] = {}
        for key, value in values.items():
            if key not in hints:
                raise unknown_key(key, hints, subject=subject, what="convention")
            found[key] = _as_field(value, hints[key], f"{subject}: {key}")
        try:
            conventions = cls(**found)  # type: ignore[arg-type]  # checked one by one above
            conventions.check_ranges()
        except InputError as error:
            raise error.with_subject(f"{subject}: {error.subject}") from error
        return conventions


@dataclass(frozen=True, kw_only=True)
class WrapOptions(PairOptions):
    """Options of wrapping a network: task, size, and what bundle.json says about it."""

    task: Annotated[Task, Option("Task of the network: vif, mef or mff.", group=NETWORK_GROUP)]
    size: Annotated[
        FrameSize | None,
        Option("Size of the frames; that of the network if it takes one size only.", group=BUNDLE_GROUP),
    ] = None
    conventions_file: Annotated[
        Path | None,
        Option(
            "TOML file with the conventions; if not given, NET.toml beside NET.onnx where there is one. Options "
            "replace what it states.",
            group=NETWORK_GROUP,
            metavar="FILE.toml",
        ),
    ] = None
    name: Annotated[
        str | None,
        Option("Name of the network in reports; that of its file if not given.", group=NETWORK_GROUP),
    ] = None
    source: Annotated[
        str | None,
        Option("Where the network is from, e.g. an address, recorded in the bundle.", group=NETWORK_GROUP),
    ] = None
    license: Annotated[
        str | None, Option("License of the network, e.g. MIT, recorded in the bundle.", group=NETWORK_GROUP)
    ] = None
    batch: Annotated[int, Option("Number of frames that are fused at once.", group=BUNDLE_GROUP)] = 1
    channel_order: Annotated[ChannelOrder, Option("Channel order of the frames.", group=BUNDLE_GROUP)] = "rgb"
    reference: Annotated[
        Path | None,
        Option(
            "Folder with the results of the network's own script for the source pairs, NAME.EXT for each, to compare "
            "with.",
            group=PAIRS_GROUP,
            metavar="DIR",
        ),
    ] = None
    pairs: Annotated[
        Path | None,
        Option(
            "Pairs for the comparison with the network: a folder of NAME_x.EXT and NAME_y.EXT, or a CSV file with the "
            "columns x,y; the pairs in this package if not given.",
            group=PAIRS_GROUP,
            metavar=PAIRS_METAVAR,
            is_subject=False,
        ),
    ] = None
    conventions: Conventions = Conventions()
    overrides: tuple[str, ...] = ()
    """Fields of `conventions` that replace those of the file also where they are at their defaults."""
    overwrite: Annotated[bool, Option("Replace an existing bundle.", group=BUNDLE_GROUP)] = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        check_choices(self)
        names = {field.name for field in fields(Conventions)}
        for name in self.overrides:
            if name not in names:
                raise InputError(f"{name!r}; expected names of conventions", subject="overrides")
        if self.has_pairs:
            self.check_pairs()
        if self.size is not None:
            height, width = self.size
            if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
                raise InputError(
                    f"{width}x{height}; expected 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX} pixels", subject="size"
                )
        check_range("batch", self.batch, 1, MAX_BATCH, "frames")
        if self.reference is not None and not self.has_pairs:
            raise InputError(
                "given without source pairs; expected the pairs that its pictures were fused from",
                subject="reference",
                remedy="Set {pairs}",
                settings={"pairs": ...},
            )


def _number(text: str) -> float:
    named = {"true": 1.0, "false": 0.0}
    value = named.get(text.lower(), math.nan) if text.lower() in named else float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _as_field(value: object, hint: object, subject: str) -> object:
    """Convert a value of TOML to that of a field; raises InputError where the type is another one."""
    if get_origin(hint) is tuple:
        item_type = get_args(hint)[0]
        if isinstance(value, Mapping) and subject.endswith("constant"):
            return tuple(f"{name}={_joined(numbers)}" for name, numbers in value.items())
        items = value if isinstance(value, list) else [value]
        if item_type is float:
            if not all(_is_number(item) for item in items):
                raise InputError(f"{value!r}; expected numbers", subject=subject)
            return tuple(float(item) for item in items)  # type: ignore[arg-type]
        if not all(isinstance(item, str) for item in items):
            raise InputError(f"{value!r}; expected a name, or a list of names", subject=subject)
        return tuple(items)
    if hint in (int, bool):
        if type(value) is not hint:
            expected = "a whole number" if hint is int else "true or false"
            raise InputError(f"{value!r}; expected {expected}", subject=subject)
        return value
    if not isinstance(value, str):
        raise InputError(f"{value!r}; expected a string", subject=subject)
    return value


def _joined(numbers: object) -> str:
    return " ".join(map(str, numbers)) if isinstance(numbers, list) else str(numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
