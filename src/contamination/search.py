"""Finds the longest spans that evaluation samples share with a text (section A.6), on several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .chunk import Chunk
from .index import SampleIndex
from .matches import Matches, Text

CHUNK = 1 << 21  # tokens of the text that a thread searches at a time


def search(
    index: SampleIndex,
    text: Text,
    matches: Matches,
    *,
    threads: int,
    first_document: int = 0,
    advance: Callable[[int], None] = lambda tokens: None,
) -> None:
    """Adds the spans that the samples share with a text to `matches`.

    A span is a range of more than 10 tokens of one sample and an equally long range of one document, which
    differ in at most four positions, none of them among the first 10 or at the end. The lengths do not depend
    on the number of threads.

    Args:
        first_document: number of the text's first document in `matches`.
        advance: called with numbers of searched tokens.
    """
    size = len(text.tokens)
    by_thread = [matches.copy() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, size, threads * CHUNK):
            begins = range(first, min(first + threads * CHUNK, size), CHUNK)
            running = [
                pool.submit(
                    Chunk(
                        index,
                        text,
                        range(begin, min(begin + CHUNK, size)),
                        matches=found,
                        first_document=first_document,
                    ).search
                )
                for begin, found in zip(begins, by_thread, strict=False)
            ]
            for chunk in running:
                advance(chunk.result())
    for found in by_thread:
        matches.merge(found)
