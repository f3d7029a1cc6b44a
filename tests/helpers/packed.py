"""Packed rows in lists, and pairs in files of a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamita.chat_format.encoding import Encoded
from llamita.chat_format.packed_rows import pack_dialogues
from llamita.chat_format.packing import PackedRow, packed_row, plan_rows
from llamita.data.rows import Dialogue


def pack(encoded: Sequence[Encoded], length: int, pad_token_id: int, *, seed: int) -> list[PackedRow]:
    """Returns the packed rows of encoded dialogues."""
    plan = plan_rows([len(one.input_ids) for one in encoded], length, seed=seed)
    return [
        packed_row(
            [encoded[index].input_ids for index in row],
            [encoded[index].labels for index in row],
            length,
            pad_token_id=pad_token_id,
        )
        for row in plan
    ]


def packed(
    tokenizer: Any, dialogues: Sequence[Dialogue], max_length: int, **options: Any
) -> tuple[list[PackedRow], dict[str, Any]]:
    """Returns the rows and the counts of `pack_dialogues`."""
    with tempfile.TemporaryDirectory() as folder:
        rows = pack_dialogues(
            tokenizer, dialogues, max_length, seed=0, folder=Path(folder), identity={}, **options
        )
        return list(rows), rows.counts
