"""The sizes of a model, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from tcmoa_runtime.contract import PATCH, TASKS, WINDOW, Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import JsonObject

TC_MOA: Final = "tc-moa"
ADAPTFORMER: Final = "adaptformer"
FROZEN: Final = "frozen"
Adaptation: TypeAlias = Literal["tc-moa", "adaptformer", "frozen"]
"""How the backbone is adapted to fusion: the paper's method, or one of the two baselines of its Table 5."""

IMAGE: Final = "image"
SOURCE_WEIGHTS: Final = "source-weights"
Output: TypeAlias = Literal["image", "source-weights"]
"""Use of the model's image: it is the result, as published, or it weighs the sources; see `tcmoa.source_weights`."""

OUTPUTS: Final[tuple[Output, ...]] = (IMAGE, SOURCE_WEIGHTS)

PYRAMID_PIXELS: Final = 32
"""With `source-weights` a window is a multiple of this: all bands of `tcmoa.source_weights` then have whole pixels."""

ADAPTATIONS: Final[tuple[Adaptation, ...]] = (TC_MOA, ADAPTFORMER, FROZEN)


@dataclass(frozen=True)
class Sizes:
    """The sizes that determine the shapes of a TC-MoA's parameters.

    Attributes:
        embed_dim: Channels C of the encoder, a multiple of 32 and of `num_heads`.
        depth: Blocks of the encoder, an even number.
        num_heads: Attention heads of the encoder.
        decoder_embed_dim: Channels C of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_num_heads: Attention heads of the decoder.
        patch_size: Side of a patch in pixels, after the x2 upsampling (there is none with `source-weights`).
        mlp_ratio: Hidden width of an MLP, in multiples of C.
        window: Side of an attention window in tokens.
        tau: Blocks per TC-MoA, an even number.
        experts: Number N of adapters in a TC-MoA.
        top_k: Number K of adapters that a token uses.
        tasks: Tasks, in the order of the routers.
        adaptation: One of `ADAPTATIONS`. Without TC-MoAs (see `tcmoa.moa.even_mixture`) `experts`, `top_k` and `tasks`
            have no effect.
        output: One of `OUTPUTS`. `source-weights` fuses luma only, and enlarges nothing: a token is a patch of the
            frame.

    Raises:
        InputError: No model can have these sizes.
    """

    embed_dim: int
    depth: int
    num_heads: int
    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    patch_size: int = PATCH
    mlp_ratio: int = 4
    window: int = WINDOW
    tau: int = 4
    experts: int = 4
    top_k: int = 2
    tasks: tuple[Task, ...] = TASKS
    adaptation: Adaptation = TC_MOA
    output: Output = IMAGE

    def __post_init__(self) -> None:
        if self.adaptation not in ADAPTATIONS:
            raise InputError(f"adaptation is {self.adaptation!r}; expected one of {', '.join(ADAPTATIONS)}")
        if self.output not in OUTPUTS:
            raise InputError(f"output is {self.output!r}; expected one of {', '.join(OUTPUTS)}")
        for name, value in self.to_dict().items():
            if name not in ("tasks", "adaptation", "output") and (not isinstance(value, int) or value < 1):
                raise InputError(f"{name} is {value!r}; expected a positive whole number")
        for name, dim, heads in (
            ("embed_dim", self.embed_dim, self.num_heads),
            ("decoder_embed_dim", self.decoder_embed_dim, self.decoder_num_heads),
        ):
            if dim % heads or dim % 32:
                raise InputError(f"{name} is {dim}; expected a multiple of 32 and of its {heads} heads")
        for name, depth in (("depth", self.depth), ("decoder_depth", self.decoder_depth)):
            if depth % 2:
                raise InputError(
                    f"{name} is {depth}; expected an even number, as two blocks share a position bias"
                )
        if self.tau % 2:
            raise InputError(f"tau is {self.tau}; expected an even number")
        if self.output == SOURCE_WEIGHTS and self.window * self.patch_size % PYRAMID_PIXELS:
            raise InputError(
                f"windows of {self.window} tokens are windows of {self.window * self.patch_size} pixels; expected a "
                f"multiple of {PYRAMID_PIXELS} pixels, which the output {SOURCE_WEIGHTS!r} needs"
            )
        if self.top_k > self.experts:
            raise InputError(f"top_k is {self.top_k}; expected 1 to {self.experts}, the number of experts")

    @property
    def shift(self) -> int:
        """Tokens by which odd blocks shift their windows: half a window."""
        return self.window // 2

    def moa_positions(self, depth: int) -> list[int]:
        """Return the indices of the blocks that a TC-MoA follows in a stage: 1, 5, 9, ... for a tau of 4."""
        return [i for i in range(depth) if i % self.tau == self.tau // 2 - 1]

    @property
    def encoder_moas(self) -> int:
        """Number of TC-MoAs in the encoder."""
        return len(self.moa_positions(self.depth))

    @property
    def decoder_moas(self) -> int:
        """Number of TC-MoAs in the decoder."""
        return len(self.moa_positions(self.decoder_depth))

    def to_dict(self) -> JsonObject:
        """Return the values by field name, for JSON.

        `adaptation` and `output` are omitted where they are the published ones, so that such files can be read by
        versions without them.
        """
        values: JsonObject = {
            f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)
        }
        if self.adaptation == TC_MOA:
            del values["adaptation"]
        if self.output == IMAGE:
            del values["output"]
        return values


PRESETS: Final = MappingProxyType(
    {
        "base": Sizes(768, 12, 12, 512, 8, 16),
        "large": Sizes(1024, 24, 16, 512, 8, 16),
        # Both weigh the sources, in luma. A token is 16x16 pixels of the frame and holds the 64 coefficients of its
        # luma at half resolution; C = 160 holds those of both sources at once. Windows of 10 tokens (160 pixels) fill
        # 640x480 exactly; 1280x720 is computed with 11 % of padding, 1920x1080 with 4 %.
        "tiny": Sizes(160, 4, 5, 160, 2, 5, mlp_ratio=2, window=10, tau=2, output=SOURCE_WEIGHTS),
        "nano": Sizes(96, 4, 3, 96, 2, 3, mlp_ratio=2, window=10, tau=2, output=SOURCE_WEIGHTS),
    }
)
"""`base` and `large` are the published sizes; `tiny` and `nano` can be trained and run on two CPU cores."""


def preset_name(sizes: Sizes) -> str:
    """Return the name of the preset with these sizes, or `custom`."""
    return next((name for name, known in PRESETS.items() if known == sizes), "custom")
