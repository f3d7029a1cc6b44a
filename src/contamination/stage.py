"""The stage `contamination`: searches the training text for evaluation samples (section A.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import RESUME, write_json
from ..batches import batches
from ..corpus.corpus import Corpus
from ..corpus.encoder import DocumentEncoder
from ..data.intake import Intake
from ..errors import ConfigError, DataError
from ..jsonl import Row, write_rows
from ..limits import available_cores
from ..model.checkpoint import load_tokenizer, tokenizer_hash
from ..settings import listed
from .index import SampleIndex
from .matches import SHORTEST_SPAN
from .parts import corpus_parts, row_parts
from .scan import Scan
from .settings import ContaminationSettings
from .subsets import MIN_SPANS, contaminated_shares, subset_figures
from .summary import show_summary
from .texts import Sample, read_questions, read_samples

SHARDS = "shards"  # corpus of a stage `pretrain` that tokenized its text itself
AT_ONCE = 1000  # samples that are encoded at a time
Benchmarks = Mapping[str, Sequence[Sample]]


def run(settings: ContaminationSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes `contamination.json` and, with a row per sample, `contamination.jsonl` (docs/contamination.md).

    Returns the contents of the first. A resumed run skips the shards that were searched before.

    Raises:
        ConfigError: there are no samples, or neither a corpus nor rows to search.
        DataError: broken samples, rows or shards, or the corpus was written with another tokenizer.
    """
    if "corpus" not in inputs and not settings.rows:
        raise ConfigError("nothing to search; set the input `corpus`, or `rows`")
    tokenizer = load_tokenizer(inputs["tokenizer"])
    intake = Intake(settings.max_bad_rows)
    benchmarks = _benchmarks(settings, inputs, intake)
    encode = DocumentEncoder(tokenizer, bounded=False)
    index = SampleIndex(_encoded(benchmarks, encode), len(tokenizer))

    scan = Scan(index, settings.threads or available_cores(), out / RESUME)
    searched: dict[str, Any] = {"corpus": None, "rows": None}
    if "corpus" in inputs:
        shards = inputs["corpus"] / SHARDS
        corpus = Corpus(shards if shards.is_dir() else inputs["corpus"], tokenizer_hash(tokenizer))
        searched["corpus"] = scan.search_shards(corpus_parts(corpus))
    if settings.rows:
        parts = row_parts(settings.rows, inputs["data"], encode, intake=intake)
        searched["rows"] = scan.search_rows(parts)
    intake.write(out)

    shares = {span: contaminated_shares(scan.matches.lengths, index.bounds, span) for span in MIN_SPANS}
    write_rows(
        out / "contamination.jsonl", _rows(benchmarks, index, scan, shares=shares, tokenizer=tokenizer)
    )
    result = {"searched": searched, "benchmarks": _figures(benchmarks, index, shares), **intake.metrics()}
    write_json(out / "contamination.json", result)
    show_summary(result)
    return result


def _benchmarks(settings: ContaminationSettings, inputs: Mapping[str, Path], intake: Intake) -> Benchmarks:
    benchmarks = read_questions(listed(inputs, "benchmarks"))
    if settings.samples:
        read = read_samples(settings.samples, inputs["data"], intake)
        if both := sorted(benchmarks.keys() & read.keys()):
            raise DataError(
                f"benchmark {both[0]!r} is both in `samples` and in the input `benchmarks`; change its "
                "name in `samples`"
            )
        benchmarks |= read
    if not benchmarks:
        raise ConfigError("no evaluation samples; set `samples`, or the input `benchmarks`")
    return benchmarks


def _encoded(benchmarks: Benchmarks, encode: DocumentEncoder) -> list[np.ndarray]:
    """Returns the token ids of all samples, uint32 `[tokens]` each."""
    texts = [sample.text for samples in benchmarks.values() for sample in samples]
    encoded: list[np.ndarray] = []
    for batch in batches(texts, AT_ONCE):
        ids, lengths = encode(batch)
        encoded += np.split(ids, np.cumsum(lengths)[:-1])
    return encoded


def _by_benchmark(benchmarks: Benchmarks) -> Iterator[tuple[str, Sequence[Sample], slice]]:
    """Yields the name of each benchmark, its samples, and their places among all samples."""
    begin = 0
    for name, samples in benchmarks.items():
        yield name, samples, slice(begin, begin + len(samples))
        begin += len(samples)


def _figures(
    benchmarks: Benchmarks, index: SampleIndex, shares: Mapping[int, np.ndarray]
) -> dict[str, dict[str, Any]]:
    lengths = np.diff(index.bounds)
    figures = {}
    for name, samples, places in _by_benchmark(benchmarks):
        known = [sample.score for sample in samples if sample.score is not None]
        spans = {
            str(span): subset_figures(share[places], known if len(known) == len(samples) else None)
            for span, share in shares.items()
        }
        figures[name] = {
            "samples": len(samples),
            "tokens": int(lengths[places].sum()),
            "too_short": int((lengths[places] < SHORTEST_SPAN).sum()),
            "affected_up_to": max(
                (int(span) for span, one in spans.items() if one["affected"]), default=None
            ),
            "spans": spans,
        }
    return figures


def _rows(
    benchmarks: Benchmarks,
    index: SampleIndex,
    scan: Scan,
    *,
    shares: Mapping[int, np.ndarray],
    tokenizer: Any,
) -> Iterator[Row]:
    for name, samples, places in _by_benchmark(benchmarks):
        for number, sample in enumerate(samples):
            begin, end = index.bounds[places.start + number : places.start + number + 2].tolist()
            yield {
                "benchmark": name,
                "id": sample.id or str(number),
                "score": sample.score,
                "tokens": end - begin,
                "contaminated": {str(span): float(share[places][number]) for span, share in shares.items()},
                "longest": _longest(index, scan, slice(begin, end), tokenizer=tokenizer),
            }


def _longest(index: SampleIndex, scan: Scan, sample: slice, *, tokenizer: Any) -> Row | None:
    """Returns the longest span of a sample: its tokens, its text, and the first document that contains it."""
    lengths, documents = scan.matches.lengths[sample], scan.matches.documents[sample]
    longest = int(lengths.max(initial=0))
    if not longest:
        return None
    candidates = np.flatnonzero(lengths == longest)
    first = int(candidates[np.argmin(documents[candidates])])
    ids = index.tokens[sample][first : first + longest].tolist()
    return {"tokens": longest, "text": tokenizer.decode(ids), **scan.origins.of(int(documents[first]))}
