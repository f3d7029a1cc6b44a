"""Speed of preparing a corpus, compared with `tokenizers.encode_batch` alone, in MB of text per second.

    python benchmarks/prepare.py DATA_FOLDER FILE FORMAT TOKENIZER

for example `DATA t0/train.jsonl.gz prompt_completion runs/real/tokenizer`. The two methods alternate for
several rounds; the table shows medians, the last line the median of the ratios of each round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import describe, table

from llamita.corpus.writing import write_corpus
from llamita.data.settings import CorpusSettings
from llamita.data.sources import read_documents
from llamita.model.checkpoint import load_tokenizer
from llamita.settings import Source

ROUNDS = 5


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    root, path, format, tokenizer_folder = sys.argv[1:]
    tokenizer = load_tokenizer(Path(tokenizer_folder))
    source = {"path": path, "format": format}
    texts = list(read_documents([Source.model_validate(source)], Path(root)))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    settings = CorpusSettings.model_validate({"documents": [source], "validation_share": 0.01})

    def prepare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(
                settings, 0, tokenizer, root=Path(root), folder=Path(folder), journal=Path(folder) / "journal"
            )

    def encode() -> None:
        for start in range(0, len(texts), 1000):
            tokenizer.backend_tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)

    times: dict[str, list[float]] = {"encode_batch": [], "prepare": []}
    for _ in range(ROUNDS):
        times["encode_batch"].append(seconds(encode))
        times["prepare"].append(seconds(prepare))
    ratios = [raw / ours for raw, ours in zip(*times.values(), strict=True)]
    rows = [
        [name, f"{megabytes / statistics.median(taken):.2f}", f"{min(taken):.2f} to {max(taken):.2f}"]
        for name, taken in times.items()
    ]
    print(describe(sys.argv))
    print(table(["method", "MB/s", f"seconds for {megabytes:.1f} MB"], rows))
    print(
        f"\nprepare / encode_batch: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
