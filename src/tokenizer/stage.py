"""The stage `tokenizer`: trains a BPE tokenizer with Llama's special tokens and chat template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..chat_format.encoding import check_messages
from ..chat_format.llama2 import CONTROL_STRINGS, turn_texts
from ..console import say, track
from ..data.intake import Intake
from ..data.sources import read_dialogues, read_documents
from .bpe import tokens_per_tag, train_bpe
from .settings import TokenizerSettings

MEASURED = 2000  # number of documents on which `bytes_per_token` is measured


def run(settings: TokenizerSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Trains the tokenizer and writes it to `out/model`.

    Metrics: `vocab_size`, `bytes_per_token` and `unknown_tokens` on the first 2,000 documents,
    `tokens_per_tag`, `documents`, `dialogues`, and those of `data.intake.Intake` (skipped rows).
    Raises DataError for more bad rows than `max_bad_rows`.
    """
    intake = Intake(settings.max_bad_rows, partial(check_messages, control_strings=CONTROL_STRINGS))
    texts = _Texts(settings, inputs["data"], intake)
    tokenizer = train_bpe(track(texts, "reading text", unit="texts"), settings.vocab_size)
    if len(tokenizer) < settings.vocab_size:
        say(
            f"every word is already one token: the vocabulary has {len(tokenizer):,} tokens instead of "
            f"{settings.vocab_size:,}"
        )
    tokenizer.save_pretrained(str(out / "model"))
    intake.write(out)
    return {
        "vocab_size": len(tokenizer),
        **_compression(tokenizer, texts.first_documents),
        "tokens_per_tag": tokens_per_tag(tokenizer),
        **texts.counts,
        **intake.metrics(),
    }


class _Texts:
    """The training texts, read once: all documents, then all dialogues in the chat format.

    Attributes:
        counts: number of `documents` and `dialogues` read so far.
        first_documents: the first documents, on which the tokenizer is measured.
    """

    def __init__(self, settings: TokenizerSettings, root: Path, intake: Intake) -> None:
        self._settings, self._root, self._intake = settings, root, intake
        self.counts: Counter[str] = Counter()
        self.first_documents: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for document in read_documents(self._settings.documents, self._root, self._intake):
            self.counts["documents"] += 1
            if len(self.first_documents) < MEASURED:
                self.first_documents.append(document)
            yield document
        for dialogue in read_dialogues(self._settings.dialogues, self._root, self._intake):
            self.counts["dialogues"] += 1
            for turn in turn_texts(dialogue.messages):
                yield from (piece for piece in turn if piece is not None)


def _compression(tokenizer: Any, documents: list[str]) -> dict[str, Any]:
    ids = tokenizer(documents, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    unknown = sum(row.count(tokenizer.unk_token_id) for row in ids)
    size = sum(len(document.encode()) for document in documents)
    return {"bytes_per_token": size / sum(map(len, ids)), "unknown_tokens": unknown}
