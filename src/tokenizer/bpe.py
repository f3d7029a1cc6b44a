"""Trains a BPE tokenizer that behaves like Llama's (paper, section 2.2).

Ids: `<unk>` 0 (also pad), `<s>` 1, `</s>` 2, the 256 bytes 3 … 258, then characters and merges. A space is
prepended to each text, so that its first word has the same ids as elsewhere. Numbers are split into digits,
a newline is the byte token `<0x0A>`, and characters outside the vocabulary are split into bytes. Decoding
returns exactly the encoded text: tokens contain spaces instead of SentencePiece's "▁", because a text's own
"▁" would be decoded as a space.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from ..chat_format.llama2 import B_INST, B_SYS, BOS, CHAT_TEMPLATE, E_INST, E_SYS, EOS, TAGS, UNK

SPECIAL = [UNK, BOS, EOS]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# No token crosses the boundaries of these units: a tag of the chat format, a newline, a digit, a word, a run
# of other characters, a run of spaces or of other white space. A tag, a word and a run of other characters
# include one space before them.
UNITS = (
    r" ?\[/?INST\]| ?<</?SYS>>|\n|\p{N}"
    r"| ?[\p{L}\p{M}]+| ?[^\s\p{L}\p{M}\p{N}]+"
    r"| +(?= )| |[^\S\n ]+"
)
TAG_TEXT = f"{B_INST} {B_SYS}\n{E_SYS} {E_INST}"  # each tag after the character that precedes it in a chat
CHARACTERS_PER_TAG = 1000


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a tokenizer of `vocab_size` tokens, or fewer if every unit is already one token.

    At most half of the tokens that are neither special tokens nor bytes are characters: the space and the
    most frequent others.
    """
    trained = _pipeline(BPE(unk_token=UNK, byte_fallback=True))
    newlines = pre_tokenizers.Split("\n", "removed")  # encoded as a byte, so not part of the alphabet
    trained.pre_tokenizer = pre_tokenizers.Sequence([newlines, trained.pre_tokenizer])
    characters = (vocab_size - len(SPECIAL + BYTES)) // 2
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL + BYTES,
        limit_alphabet=characters,
        initial_alphabet=[" "],
        show_progress=False,
    )
    trained.train_from_iterator(_without_ties(_with_tags(texts), characters - 1), trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    # a new tokenizer, because training makes the bytes special tokens, which a text with "<0x41>" would match
    tokenizer = _pipeline(BPE(model["vocab"], merges, unk_token=UNK, byte_fallback=True))
    tokenizer.add_special_tokens(SPECIAL)
    return _wrap(tokenizer)


def _with_tags(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts and, once per thousand characters, all tags, so that each becomes a token early."""
    characters = 0
    for text in texts:
        yield text
        characters += len(text)
        if characters >= CHARACTERS_PER_TAG:
            yield " ".join([TAG_TEXT] * (characters // CHARACTERS_PER_TAG))
            characters %= CHARACTERS_PER_TAG


def _without_ties(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Yields the texts and, if they have more than `limit` different characters, a text that decides ties.

    The trainer drops the rarest characters; among equally frequent ones it chooses at random. The last text
    repeats those of them that are to be kept, the ones with the lowest code points. Each is in a line of its
    own, so no pair is added that could be merged. The space is always in the alphabet and the newline never,
    so neither is counted.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        yield text
        counts.update(text)
    del counts[" "], counts["\n"]
    if len(counts) > limit:
        kept = sorted(counts, key=lambda character: (-counts[character], character))[:limit]
        yield "".join(f"\n{character}" for character in kept if counts[character] == counts[kept[-1]])


def _pipeline(model: BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(UNITS), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1, right=0)]
    )
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Wraps the tokenizer for `transformers`: BOS before each text, Llama's special tokens, chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        pad_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        add_bos_token=True,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def tokens_per_tag(tokenizer: Any) -> dict[str, int]:
    """Returns the number of tokens of each tag of the chat format, in the context of a chat."""
    spans = tokenizer(TAG_TEXT, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    counts = {}
    for tag in TAGS:
        start = TAG_TEXT.index(tag)
        counts[tag] = sum(first < start + len(tag) and last > start for first, last in spans)
    return counts
