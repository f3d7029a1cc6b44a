"""Settings of the stage `sft` (imports no torch)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ..config import Source
from ..data.settings import RowSettings
from ..training.settings import FINE_TUNING, FINE_TUNING_ROWS, PACKED, RESERVED, TOKENIZED, PackedSettings


class SftSettings(RowSettings, PackedSettings):
    """Supervised fine-tuning (section 3.1), multi-turn sets augmented by Ghost Attention (section 3.3).

    In the paper a step has 64 rows.
    """

    required_inputs: ClassVar[frozenset[str]] = frozenset({"model", "data"})
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"gatt"})
    trainer_class: ClassVar[str | None] = "trl.SFTConfig"
    trainer_reserved: ClassVar[dict[str, str]] = RESERVED | PACKED | TOKENIZED
    below: ClassVar[dict[str, str]] = {"ghost_attention": "gatt"}
    trainer_defaults: ClassVar[dict[str, Any]] = FINE_TUNING

    dialogues: list[Source] = Field(min_length=1)
    """dialogues whose answers are all trained"""
    ghost_attention: list[Source] = []
    """dialogues whose last answer alone is trained, below the input `gatt`, or else `data`; an `instruction`
    is kept in the first turn only"""
    chat_format: Literal["own", "llama2"] = "own"
    """`own`: as the chat template of the base model's tokenizer says; `llama2`: Llama 2's in place of it"""
    row_length: int = Field(4096, gt=1)
    """tokens of a packed row; longer dialogues are refused and counted"""

    @property
    def row_tokens(self) -> int:
        return self.row_length

    @property
    def step_rows(self) -> int:
        return FINE_TUNING_ROWS
