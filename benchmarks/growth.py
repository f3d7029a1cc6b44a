"""A corpus a hundred times as large: time, memory, and how soon a resumed run has its first batch.

    python benchmarks/growth.py DATA_FOLDER FILE FORMAT TOKENIZER [MEGABYTES]

The documents of FILE again and again, each time with a number behind them so that none equals another, until
there are MEGABYTES (1,000 unless said) of text, and a hundredth of that. Each is prepared in a process of its
own.
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
    """Returns the documents written."""
    left, written = megabytes * 1e6, 0
    with path.open("w", encoding="utf-8") as file:
        for turn in count():
            for text in texts:
                file.write(json.dumps({"text": f"{text} {turn}"}) + "\n")
                written += 1
                left -= len(text)
                if left <= 0:
                    return written
    raise AssertionError


def prepare(folder: Path, tokenizer_folder: Path) -> None:
    """In a process of its own: seconds and peak memory, as JSON."""
    tokenizer = load_tokenizer(tokenizer_folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    settings = CorpusSettings.model_validate(SETTINGS)
    started = time.perf_counter()
    counts = write_corpus(
        settings, 0, tokenizer, root=folder, folder=folder / "corpus", journal=folder / "journal"
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found = {"seconds": seconds, "before": before, "after": after, "tokens": counts["train"]["tokens"]}
    print("RESULT " + json.dumps(found))


def first_batch(folder: Path, tokenizer_folder: Path) -> list[tuple[str, float]]:
    """Milliseconds from the start of the loader to its first batch, by the share of the data that is done."""
    corpus = Corpus(folder / "corpus", tokenizer_hash(load_tokenizer(tokenizer_folder)))
    found = []
    for share in (0.0, 0.5, 0.999):
        started = time.perf_counter()
        rows = TokenRows(corpus.train, CONTEXT, apart=True)
        batches = RankBatches(MixedOrder(rows.counts, corpus.weights, 0), ROWS, 0, ranks=1)
        done = int(len(batches) * share)
        batches.resume(0, done)
        loader = skip_first_batches(OrderedLoader(rows, batch_sampler=batches), done)
        next(iter(loader))
        found.append((f"{done:,} of {len(batches):,} batches", 1000 * (time.perf_counter() - started)))
    return found


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
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
            found = json.loads(line.removeprefix("RESULT "))
            rows.append(
                [
                    f"{size:g} MB",
                    f"{documents:,}",
                    f"{found['tokens']:,}",
                    f"{found['seconds']:.1f}",
                    f"{size / found['seconds']:.2f}",
                    f"{found['before']:.0f}",
                    f"{found['after']:.0f}",
                ]
            )
        starts = first_batch(folder, Path(tokenizer))
    print(describe(sys.argv))
    head = ["text", "documents", "tokens", "seconds", "MB/s", "MB of memory before", "at most"]
    print(table(head, rows))
    print()
    print(
        table(["a run resumed after", "ms to its first batch"], [[what, f"{ms:.1f}"] for what, ms in starts])
    )


if __name__ == "__main__":
    main()
