"""Model sizes, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final

from tcmoa_runtime.contract import PATCH, TASKS, WINDOW

TC_MOA: Final = "tc-moa"
ADAPTFORMER: Final = "adaptformer"
FROZEN: Final = "frozen"
ADAPTATIONS: Final = (TC_MOA, ADAPTFORMER, FROZEN)
"""What adapts the backbone to fusion: the paper's method, and the two baselines of its Table 5."""


@dataclass(frozen=True)
class Sizes:
    """Everything that fixes the shape of a TC-MoA; the rest is derived.

    `embed_dim` and `decoder_embed_dim` are C of the two stages. `tau` is the number of blocks per TC-MoA,
    `experts` is N and `top_k` is K of the paper. `adaptation` is one of `ADAPTATIONS`; without TC-MoAs (see
    `tcmoa.moa.even_mixture`) N, K and the tasks shape nothing. Raises ValueError on sizes that no model can have.
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
    tasks: tuple[str, ...] = TASKS
    adaptation: str = TC_MOA

    def __post_init__(self) -> None:
        if self.adaptation not in ADAPTATIONS:
            raise ValueError(f"adaptation is {self.adaptation!r}, expected one of {', '.join(ADAPTATIONS)}")
        for name, value in self.to_dict().items():
            if name not in ("tasks", "adaptation") and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}, expected a positive whole number")
        for name, dim, heads in (
            ("encoder", self.embed_dim, self.num_heads),
            ("decoder", self.decoder_embed_dim, self.decoder_num_heads),
        ):
            if dim % heads or dim % 32:
                raise ValueError(f"{name} width {dim} must be a multiple of 32 and of its {heads} heads")
        if self.depth % 2 or self.decoder_depth % 2:
            raise ValueError("depths must be even: blocks share a position bias two by two")
        if self.tau % 2 or not 1 <= self.top_k <= self.experts:
            raise ValueError("tau must be even and top_k between 1 and the number of experts")

    @property
    def shift(self) -> int:
        """Tokens by which odd blocks shift their windows: half a window."""
        return self.window // 2

    def moa_positions(self, depth: int) -> list[int]:
        """Indices of the blocks of a stage of `depth` blocks after which a TC-MoA stands: 1, 5, 9, ... for tau 4."""
        return [i for i in range(depth) if i % self.tau == self.tau // 2 - 1]

    @property
    def encoder_moas(self) -> int:
        """Number of TC-MoAs in the encoder."""
        return len(self.moa_positions(self.depth))

    @property
    def decoder_moas(self) -> int:
        """Number of TC-MoAs in the decoder."""
        return len(self.moa_positions(self.decoder_depth))

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, for JSON.

        `adaptation` is left out where it is the paper's: files and bundles of TC-MoAs read as they always did.
        """
        values = {
            f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)
        }
        if self.adaptation == TC_MOA:
            del values["adaptation"]
        return values


PRESETS: Final = MappingProxyType(
    {
        "base": Sizes(768, 12, 12, 512, 8, 16),
        "large": Sizes(1024, 24, 16, 512, 8, 16),
        # C > 192: behind the x2 upsampling a token can hold all of its 8x8x3 pixels.
        "tiny": Sizes(256, 6, 8, 256, 4, 8),
        # All of luma, a quarter of the chroma coefficients. Windows of 10 tokens, 80 pixels: whole ones fill 320x240,
        # 640x480 and 1280x720, where those of 14 tokens compute up to half as many tokens again that are cut off.
        "nano": Sizes(128, 6, 4, 128, 2, 4, window=10),
    }
)
"""`base` and `large` as published; `tiny` and `nano` are ours, made to train and run on two CPU cores."""


def preset_name(sizes: Sizes) -> str:
    """The preset's name for these sizes, or `custom`."""
    return next((name for name, known in PRESETS.items() if known == sizes), "custom")
