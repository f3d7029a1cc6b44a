"""The spans of section A.6 by their definition: every pair of ranges is compared, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llamita.contamination.index import SampleIndex
from llamita.contamination.matches import Matches, Text
from llamita.contamination.search import search

Tokens = Sequence[int]


def is_span(first: Tokens, second: Tokens) -> bool:
    """Whether two ranges of the same length are a span: see `llamita.contamination.search.search`."""
    differ = [place for place in range(len(first)) if first[place] != second[place]]
    inner = all(10 <= place < len(first) - 1 for place in differ)
    return len(first) > 10 and len(differ) <= 4 and inner


def spans(sample: Tokens, documents: Sequence[Tokens]) -> list[tuple[int, int, int]]:
    """Returns (begin, length, document) of every span of a sample."""
    return [
        (begin, length, number)
        for number, document in enumerate(documents)
        for begin in range(len(sample))
        for place in range(len(document))
        for length in range(11, min(len(sample) - begin, len(document) - place) + 1)
        if is_span(sample[begin : begin + length], document[place : place + length])
    ]


def contaminated(sample: Tokens, documents: Sequence[Tokens], min_span: int) -> list[bool]:
    """Returns which tokens of a sample are in a span of at least `min_span` tokens."""
    found = [span for span in spans(sample, documents) if span[1] >= min_span]
    return [
        any(begin <= place < begin + length for begin, length, _ in found) for place in range(len(sample))
    ]


def as_text(documents: Sequence[Tokens], dtype: type = np.uint16) -> Text:
    """Returns documents in the form in which they are searched."""
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    tokens = np.array([token for document in documents for token in document], dtype=dtype)
    return Text(tokens, np.cumsum(lengths) - lengths)


def indexed(samples: Sequence[Tokens], vocab_size: int = 100) -> SampleIndex:
    """Returns the index of samples given as lists."""
    return SampleIndex([np.array(sample, dtype=np.uint32) for sample in samples], vocab_size)


def found_in(index: SampleIndex, *texts: Text, threads: int = 1) -> Matches:
    """Returns the matches of all samples in some texts, whose documents are numbered one after the other."""
    matches, documents = Matches.none(len(index.tokens)), 0
    for text in texts:
        search(index, text, matches, threads=threads, first_document=documents)
        documents += len(text.starts)
    return matches
