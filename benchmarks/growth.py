"""Preparing a corpus and one 100 times as large: time, memory, and time to the first batch of a resumed run.

    python benchmarks/growth.py DATA_FOLDER FILE FORMAT TOKENIZER [MEGABYTES]

The documents of FILE are repeated, each time with another number appended so that no two are equal, until
there are MEGABYTES (default: 1,000) of text; the small corpus has a hundredth of that. Each is prepared in a
process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from accelerate import skip_first_batches
from machine import describe, table

from llamita.corpus.corpus import Corpus
from llamita.corpus.token_rows import TokenRows
from llamita.corpus.writing import write_corpus
from llamita.data.settings import CorpusSettings
from llamita.data.sources import read_documents
from llamita.model.checkpoint import load_tokenizer, tokenizer_hash
from llamita.settings import Source
from llamita.training.order import MixedOrder, OrderedLoader, RankBatches

CONTEXT, ROWS = 512, 4
SETTINGS = {"documents": [{"path": "text.jsonl", "format": "text_rows"}], "validation_share": 0.001}


def write_text(path: Path, texts: list[str], megabytes: float) -> int:
    """Returns the number of documents written."""
    left, written = megabytes * 1e6, 0
    with path.open("w", encoding="utf-8") as file:
        for repetition in count():
            for text in texts:
                file.write(json.dumps({"text": f"{text} {repetition}"}) + "\n")
                written += 1
                left -= len(text)
                if left <= 0:
                    return written
    raise AssertionError


def prepare(folder: Path, tokenizer_folder: Path) -> None:
    """Prints seconds and peak memory as JSON; runs in a process of its own."""
    tokenizer = load_tokenizer(tokenizer_folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    settings = CorpusSettings.model_validate(SETTINGS)
    started = time.perf_counter()
    counts = write_corpus(
        settings, 0, tokenizer, root=folder, folder=folder / "corpus", journal=folder / "journal"
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    result = {"seconds": seconds, "before": before, "after": after, "tokens": counts["train"]["tokens"]}
    print("RESULT " + json.dumps(result))


def first_batch(folder: Path, tokenizer_folder: Path) -> list[tuple[str, float]]:
    """Milliseconds from opening the corpus to the first batch, after different shares of an epoch."""
    corpus = Corpus(folder / "corpus", tokenizer_hash(load_tokenizer(tokenizer_folder)))
    starts = []
    for share in (0.0, 0.5, 0.999):
        started = time.perf_counter()
        rows = TokenRows(corpus.train, CONTEXT, isolate_documents=True)
        batches = RankBatches(MixedOrder(rows.counts, corpus.weights, 0), ROWS, 0, ranks=1)
        done = int(len(batches) * share)
        batches.resume(0, done)
        loader = skip_first_batches(OrderedLoader(rows, batch_sampler=batches), done)
        next(iter(loader))
        starts.append((f"{done:,} of {len(batches):,} batches", 1000 * (time.perf_counter() - started)))
    return starts


def main() -> None:
    if sys.argv[1] == "--prepare":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    root, path, format, tokenizer, *rest = sys.argv[1:]
    megabytes = float(rest[0]) if rest else 1000.0
    source = Source.model_validate({"path": path, "format": format})
    texts = list(read_documents([source], Path(root)))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in (megabytes / 100, megabytes):
            folder = Path(scratch) / f"{size:g}"
            folder.mkdir()
            documents = write_text(folder / "text.jsonl", texts, size)
            command = [sys.executable, __file__, "--prepare", str(folder), tokenizer]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode:
                sys.exit(f"preparing {size:g} MB failed:\n{process.stderr}")
            line = next(line for line in process.stdout.splitlines() if line.startswith("RESULT "))
            result = json.loads(line.removeprefix("RESULT "))
            rows.append(
                [
                    f"{size:g} MB",
                    f"{documents:,}",
                    f"{result['tokens']:,}",
                    f"{result['seconds']:.1f}",
                    f"{size / result['seconds']:.2f}",
                    f"{result['before']:.0f}",
                    f"{result['after']:.0f}",
                ]
            )
        starts = first_batch(folder, Path(tokenizer))
    print(describe(sys.argv))
    head = ["text", "documents", "tokens", "seconds", "MB/s", "memory before, MB", "peak memory, MB"]
    print(table(head, rows))
    print()
    print(
        table(["run resumed after", "ms to the first batch"], [[place, f"{ms:.1f}"] for place, ms in starts])
    )


if __name__ == "__main__":
    main()
