"""The search finds exactly the spans that a comparison of all ranges finds."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import numpy as np
import pytest

from llamita.contamination import chunk, search
from llamita.contamination.index import SampleIndex
from llamita.contamination.matches import Matches
from llamita.contamination.subsets import contaminated_shares

from ..helpers.spans import as_text, contaminated, found_in, indexed, is_span, spans

FILLER, OTHER = 90, 91  # tokens of documents and of samples that never match
SPAN = list(range(30))


def shares(index: SampleIndex, matches: Matches, min_span: int = 10) -> list[float]:
    return contaminated_shares(matches.lengths, index.bounds, min_span).tolist()


def longest(sample: list[int], *documents: list[int]) -> int:
    index = indexed([sample])
    return int(found_in(index, as_text(documents)).lengths.max(initial=0))


def with_mismatches(*places: int) -> list[int]:
    return [token + 40 if place in places else token for place, token in enumerate(SPAN)]


@pytest.mark.parametrize("seed", range(60))
def test_random_tokens_as_by_brute_force(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    vocabulary = rng.choice([1, 2, 2, 3, 4])

    def draw(*lengths: int) -> list[int]:
        length = rng.choice(lengths)
        return [rng.randrange(vocabulary) if rng.random() < 0.7 else 0 for _ in range(length)]

    documents = [draw(1, 5, 9, 10, 11, 20, 30, 40) for _ in range(rng.randint(1, 6))]
    samples = [draw(0, 3, 9, 10, 11, 15, 25, 40) for _ in range(rng.randint(1, 3))]
    samples.append([token if rng.random() > 0.05 else 7 for token in rng.choice(documents)])
    sizes = {
        (search, "CHUNK"): (1, 7, 16, 1 << 21),
        (chunk, "BLOCK"): (1, 5, 1 << 16),
        (chunk, "PAIRS"): (1, 3, 1 << 20),
        (chunk, "PROBE"): (1, 2, 16),
        (chunk, "FREQUENT"): (1, 2, 512),
        (chunk, "TOGETHER"): (1, 3, 1 << 14),
    }
    for (module, name), values in sizes.items():
        monkeypatch.setattr(module, name, rng.choice(values))
    index = indexed(samples)
    matches = found_in(index, as_text(documents), threads=rng.choice([1, 2, 3]))
    for min_span in (10, 12, 15, 20):
        expected = [
            sum(contaminated(sample, documents, min_span)) / max(1, len(sample)) for sample in samples
        ]
        assert shares(index, matches, min_span) == expected
    for sample, (begin, end) in zip(samples, pairwise(index.bounds.tolist()), strict=True):
        lengths = matches.lengths[begin:end].tolist()
        assert max(lengths, default=0) == max((span[1] for span in spans(sample, documents)), default=0)
        for place, (length, document) in enumerate(
            zip(lengths, matches.documents[begin:end].tolist(), strict=True)
        ):
            text, part = documents[document], sample[place : place + length]
            inside = range(len(text) - length + 1)
            assert not length or any(is_span(part, text[at : at + length]) for at in inside)


@pytest.mark.parametrize("place", range(30))
def test_one_mismatch_at_each_place(place: int) -> None:
    sample = [OTHER, *SPAN, OTHER]
    document = [FILLER, *with_mismatches(place), FILLER]
    exact_part = max(place, 29 - place)
    if 10 <= place < 29:
        expected = 30  # inside
    else:
        expected = exact_part if exact_part > 10 else 0  # at the end, or among the first ten
    if place == 10:
        expected = 30
    assert longest(sample, document) == expected
    assert longest(sample, document) == max((span[1] for span in spans(sample, [document])), default=0)


@pytest.mark.parametrize(
    ("places", "length"),
    [
        ((), 30),
        ((10,), 30),
        ((28,), 30),
        ((29,), 29),
        ((10, 11, 12, 13), 30),
        ((12, 15, 20, 28), 30),
        ((12, 15, 20, 25, 28), 28),  # the fifth mismatch ends the span
        ((12, 15, 20, 27, 28), 27),
        ((10, 11, 12, 13, 14), 15),  # the last 15 tokens are a span of their own
        ((26, 27, 28, 29), 26),
    ],
)
def test_several_mismatches(places: tuple[int, ...], length: int) -> None:
    sample, document = [OTHER, *SPAN, OTHER], [FILLER, *with_mismatches(*places), FILLER]
    assert longest(sample, document) == length
    assert longest(sample, document) == max(span[1] for span in spans(sample, [document]))


def test_mismatched_tokens_of_a_span_count_as_contaminated() -> None:
    index = indexed([[OTHER, OTHER, *SPAN[:18]]])
    matches = found_in(index, as_text([with_mismatches(12, 15)[:18]]))
    assert shares(index, matches) == [18 / 20]
    assert shares(index, matches, 18) == [18 / 20]
    assert shares(index, matches, 19) == [0]


@pytest.mark.parametrize("length", [9, 10, 11, 12])
def test_a_span_has_more_than_ten_tokens(length: int) -> None:
    part = SPAN[:length]
    assert longest([OTHER, *part, OTHER], [FILLER, *part, FILLER]) == (length if length > 10 else 0)


@pytest.mark.parametrize("before", [0, 1, 7])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_spans_at_the_ends_of_samples_and_documents(before: int, after: int) -> None:
    around = [OTHER] * before, [OTHER] * after
    assert longest([*around[0], *SPAN, *around[1]], SPAN) == 30
    assert longest(SPAN, [*around[0], *SPAN, *around[1]]) == 30


def test_spans_cross_neither_documents_nor_samples() -> None:
    for cut in range(1, 30):
        index = indexed([SPAN[:cut], SPAN[cut:]])
        lengths = found_in(index, as_text([SPAN])).lengths
        assert [lengths[:cut].max(), lengths[cut:].max(initial=0)] == [
            length if length > 10 else 0 for length in (cut, 30 - cut)
        ]
        best = max(cut, 30 - cut)
        assert longest(SPAN, SPAN[:cut], SPAN[cut:]) == best


def test_spans_across_chunks_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHUNK", 64)
    monkeypatch.setattr(chunk, "BLOCK", 16)
    index = indexed([SPAN])
    for begin in range(0, 200, 3):
        text = as_text([[FILLER] * begin + with_mismatches(14) + [FILLER] * 50])
        for threads in (1, 2, 5):
            assert found_in(index, text, threads=threads).lengths[0] == 30


def test_token_ids_above_65_535() -> None:
    sample = [token + 70_000 for token in SPAN]
    index = indexed([sample], 120_000)
    assert found_in(index, as_text([sample], np.uint32)).lengths[0] == 30
    shifted = as_text([[token - 65_536 for token in sample]])  # equal in the lower 16 bits
    assert found_in(index, shifted).lengths.max() == 0


def test_empty_samples_and_texts() -> None:
    index = indexed([[], SPAN[:5], [], SPAN, []])
    assert shares(index, found_in(index, as_text([SPAN]))) == [0, 0, 0, 1, 0]
    assert shares(index, found_in(index, as_text([]))) == [0] * 5
    assert shares(index, found_in(index, as_text([SPAN[:3]]))) == [0] * 5
    for nothing in ([], [[]], [[1, 2, 3]]):
        index = indexed(nothing)
        assert shares(index, found_in(index, as_text([SPAN]))) == [0] * len(nothing)


def test_documents_are_numbered_over_all_texts() -> None:
    index = indexed([SPAN])
    matches = found_in(index, as_text([SPAN[:11], [1]]), as_text([[2], SPAN]), as_text([SPAN]))
    assert (matches.lengths[0], matches.documents[0]) == (30, 3)


def test_different_grams_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = SampleIndex._hashes
    monkeypatch.setattr(SampleIndex, "_hashes", lambda index, tokens: hashes(index, tokens) >> np.uint64(60))
    index = indexed([[1] * 10 + SPAN[20:]])  # with 16 different hashes
    rng = random.Random(0)
    documents = [[*(rng.randrange(40, 90) for _ in range(10)), *SPAN[20:]] for _ in range(200)]
    assert found_in(index, as_text(documents)).lengths.max() == 0
    assert found_in(index, as_text([*documents, [1] * 10 + SPAN[20:23]])).lengths.max() == 13


def test_colliding_samples_get_other_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = SampleIndex._hashes
    seeds: list[int] = []
    hash_places = SampleIndex._hash

    def collide(index: SampleIndex, tokens: np.ndarray) -> np.ndarray:
        return hashes(index, tokens) * np.uint64(len(seeds) > 2)

    def count(index: SampleIndex, places: np.ndarray, vocab_size: int, seed: int) -> bool:
        seeds.append(seed)
        return hash_places(index, places, vocab_size, seed)

    monkeypatch.setattr(SampleIndex, "_hashes", collide)
    monkeypatch.setattr(SampleIndex, "_hash", count)
    index = indexed([SPAN])
    assert seeds == [0, 1, 2]
    assert found_in(index, as_text([SPAN])).lengths[0] == 30


def test_a_passage_in_every_document_and_sample() -> None:
    rng = np.random.default_rng(0)
    passage = rng.integers(0, 5000, 60)

    def around(count: int) -> list[np.ndarray]:
        ends = rng.integers(0, 5000, (count, 2, 30))
        return [np.concatenate((before, passage, after)) for before, after in ends]

    documents, samples = around(20_000), [sample.astype(np.uint32) for sample in around(500)]
    index = SampleIndex(samples, 5000)
    text = as_text([[0]])._replace(
        tokens=np.concatenate(documents).astype(np.uint16), starts=np.arange(20_000) * 120
    )
    processor = time.process_time()
    found = found_in(index, text)
    assert time.process_time() - processor < 20  # of ten million pairs; about 2 are enough
    assert np.all(np.maximum.reduceat(found.lengths, index.bounds[:-1]) >= 60)


def test_a_frequent_gram_continues_after_four_mismatches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "FREQUENT", 2)
    index = indexed([SPAN])
    documents = [SPAN[:12]] * 3
    assert found_in(index, as_text([*documents, with_mismatches(12, 13, 14, 15)])).lengths[0] == 30
    assert found_in(index, as_text([*documents, with_mismatches(12, 13, 14, 15, 16)])).lengths[0] == 12


def test_hits_after_different_tokens_are_compared_with_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "FREQUENT", 1)
    index = indexed([[50, *SPAN[:11], 60, 61, 62], [51, *SPAN[:11], 70, 71]])
    text = as_text([*[[50, *SPAN[:11]]] * 3, [52, *SPAN[:11], 60, 61, 62]])
    lengths = found_in(index, text).lengths
    assert (lengths[0], lengths[1], lengths[16]) == (12, 14, 11)


def test_a_repeated_token() -> None:
    text, index = as_text([[1] * 200_000]), indexed([[1] * 2000, [1] * 11])
    processor = time.process_time()
    lengths = found_in(index, text).lengths
    assert time.process_time() - processor < 20
    assert (lengths[0], lengths[2000]) == (2000, 11)
