"""The corpus: held-out and skipped documents, counts, and that interruptions lose nothing."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llamita.corpus import writing
from llamita.corpus.corpus import Corpus
from llamita.corpus.writing import write_corpus
from llamita.data.settings import CorpusSettings
from llamita.errors import DataError
from llamita.model.checkpoint import tokenizer_hash

from ..helpers.rows import write
from ..helpers.sources import source_setting

TEXTS = [f"it is red today {number}" for number in range(300)]


def settings(**changes: Any) -> CorpusSettings:
    return CorpusSettings.model_validate(
        {"documents": source_setting("train", "text_rows"), "validation_share": 0.2} | changes
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": text} for text in [*TEXTS, *TEXTS[::-1], *TEXTS[::7], " "]]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "held.jsonl", [{"text": "yes ä"}, {"text": "fine thanks"}])
    return tmp_path


def made(chosen: CorpusSettings, data: Path, tokenizer: Any, name: str = "out", seed: int = 0) -> Corpus:
    write_corpus(chosen, seed, tokenizer, root=data, folder=data / name, journal=data / f"{name}.sqlite")
    corpus = Corpus(data / name, tokenizer_hash(tokenizer))
    corpus.verify()
    return corpus


def texts(corpus: Corpus, part: str, tokenizer: Any) -> list[str]:
    """The documents of a part, decoded."""
    found = []
    for stream in getattr(corpus, part):
        ids = stream.read(0, stream.tokens).tolist()
        begins = [*stream.document_starts(0, stream.tokens).tolist(), stream.tokens]
        found += [tokenizer.decode(ids[a + 1 : b - 1]) for a, b in itertools.pairwise(begins)]
    return found


def test_only_the_text_decides_which_share_is_held_out(data: Path, tokenizer: Any) -> None:
    corpus = made(settings(deduplicate=False), data, tokenizer)
    train, held_out = (texts(corpus, part, tokenizer) for part in ("train", "validation"))
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted([*TEXTS, *TEXTS, *TEXTS[::7]])
    assert 0.12 < len(set(held_out)) / len(TEXTS) < 0.28
    other = made(settings(deduplicate=False), data, tokenizer, "other", seed=1)
    assert held_out != texts(other, "validation", tokenizer)


def test_equal_documents_are_kept_once_and_held_out_ones_are_not_trained(data: Path, tokenizer: Any) -> None:
    write(data / "held.jsonl", [{"text": TEXTS[3]}, {"text": "yes"}, {"text": "yes"}])
    chosen = settings(validation=source_setting("held", "text_rows"), validation_share=0)
    corpus = made(chosen, data, tokenizer)
    assert texts(corpus, "validation", tokenizer) == [TEXTS[3], "yes"]
    assert texts(corpus, "train", tokenizer) == [text for text in TEXTS if text != TEXTS[3]]
    assert corpus.counts["duplicates"] == 1 + 1 + len(TEXTS) + len(TEXTS[::7])


def test_shards_and_counts(data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write(data / "more.jsonl", [{"text": "again " * 20}])
    documents = [
        *source_setting("train", "text_rows"),
        {**source_setting("more", "text_rows")[0], "weight": 2.5},
    ]
    chosen = settings(
        documents=documents,
        validation=source_setting("held", "text_rows"),
        validation_share=0,
        shard_tokens=1000,
        deduplicate=False,
    )
    corpus = made(chosen, data, tokenizer)
    encoded = tokenizer(["yes ä", "fine thanks"], add_special_tokens=False)["input_ids"]
    ids = [1, *encoded[0], 2, 1, *encoded[1], 2]
    assert corpus.validation[0].read(0, corpus.validation[0].tokens).tolist() == ids
    size = len("yes ä".encode()) + len("fine thanks")
    counts = corpus.counts
    assert counts["validation"] == {
        "documents": 2,
        "tokens": len(ids),
        "bytes": size,
        "bytes_per_token": size / len(ids),
        "lengths": {"16": 2},
        "sources": [
            {
                "path": "held.jsonl",
                "weight": 1.0,
                "folder": "validation/000",
                "documents": 2,
                "tokens": len(ids),
                "bytes": size,
            }
        ],
    }
    assert [part["documents"] for part in counts["train"]["sources"]] == [643, 1]
    assert corpus.weights == [1.0, 2.5]
    assert counts["train"]["lengths"] == {"16": 643, "32": 1}
    assert counts["skipped"] == {"empty document": 1}
    assert counts["bad_rows"] == counts["duplicates"] == 0
    output = capsys.readouterr().out
    assert output.count("empty document") == 1
    weighted = [part["weight"] * part["tokens"] for part in counts["train"]["sources"]]
    more = counts["train"]["sources"][1]
    row = next(line for line in output.splitlines() if line.startswith("more.jsonl")).split()
    assert row[1:3] == ["1", str(more["tokens"])]
    assert row[3:] == [
        f"{more['bytes'] / more['tokens']:.2f}",
        "2.5",
        f"{weighted[1] / sum(weighted):.1%}",
    ]
    assert "skipped: 0 duplicates, 1 unusable documents, 0 bad rows" in output
    assert len(corpus.train[0].index["shards"]) == 3


def test_bad_rows_stop_the_stage_or_are_listed(data: Path, tokenizer: Any) -> None:
    lines = ['{"text": "fine"}', '{"txt": "fine"}', "{", '{"text": "yes"}', "[1]"]
    (data / "broken.jsonl").write_text("\n".join(lines))
    documents = source_setting("broken", "text_rows")
    with pytest.raises(DataError, match=r"broken.jsonl:2: field 'text' is missing"):
        made(settings(documents=documents), data, tokenizer)
    with pytest.raises(
        DataError, match=r"broken.jsonl:5: the row is a list.*; 2 bad rows before it were skipped"
    ):
        made(settings(documents=documents, max_bad_rows=2), data, tokenizer)
    chosen = settings(
        documents=documents,
        max_bad_rows=3,
        validation=source_setting("held", "text_rows"),
        validation_share=0,
    )
    corpus = made(chosen, data, tokenizer)
    assert corpus.counts["bad_rows"] == 3
    refused = [json.loads(line) for line in (data / "out" / "bad_rows.jsonl").read_text().splitlines()]
    assert [reason.split(": ")[0].rsplit("/")[-1] for reason in refused] == [
        f"broken.jsonl:{number}" for number in (2, 3, 5)
    ]
    assert texts(corpus, "train", tokenizer) == ["fine", "yes"]


def test_a_source_without_usable_rows_reports_its_first_bad_row(
    data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "some.jsonl").write_text('{"text": "fine"}\n{\n')
    (data / "none.jsonl").write_text("{\n[1]\n")
    documents = [*source_setting("some", "text_rows"), *source_setting("none", "text_rows")]
    problem = r"none.jsonl: no usable row \(2 bad, the first: .*none.jsonl:1: invalid JSON"
    with pytest.raises(DataError, match=problem):
        made(settings(documents=documents, max_bad_rows=5, shard_tokens=2), data, tokenizer)
    assert "some.jsonl: 1 bad row skipped, listed in bad_rows.jsonl" in capsys.readouterr().out


def test_errors(data: Path, tokenizer: Any) -> None:
    write(data / "one.jsonl", [{"text": TEXTS[0]}])
    nothing_held_out = settings(documents=source_setting("one", "text_rows"), validation_share=1e-9)
    with pytest.raises(
        DataError, match=r"validation documents: .*one document.*; increase validation_share, now 1e-09"
    ):
        made(nothing_held_out, data, tokenizer)
    with pytest.raises(DataError, match="'text_rowz' cannot be used for documents; did you mean 'text_rows'"):
        made(settings(documents=source_setting("one", "text_rowz")), data, tokenizer)
    with pytest.raises(
        DataError, match=r"corpus.json does not exist; expected a corpus, which `llamita prepare` writes"
    ):
        Corpus(data, "abc")


def test_a_flipped_byte_is_detected(data: Path, tokenizer: Any) -> None:
    corpus = made(settings(), data, tokenizer)
    for path, _ in corpus.train[0].checksums():
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(DataError, match=rf"{path.name}: the checksum differs from that in index.json"):
            corpus.verify()
        path.write_bytes(whole)
    files = len(corpus.train[0].checksums()) + len(corpus.validation[0].checksums())
    path, _ = corpus.train[0].checksums()[0]
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(DataError):
        corpus.verify(0, files)  # its share is the first file alone
    corpus.verify(1, files)


def test_all_kinds_of_files_give_the_same_corpus(data: Path, tokenizer: Any) -> None:
    plain = (data / "train.jsonl").read_bytes()
    (data / "packed.jsonl.gz").write_bytes(gzip.compress(plain))
    (data / "packed.jsonl.zst").write_bytes(zstandard.compress(plain))
    rows = [json.loads(line) for line in plain.splitlines()]
    __import__("datasets").Dataset.from_list(rows).to_parquet(str(data / "packed.parquet"))
    expected = made(settings(), data, tokenizer, "plain")
    for ending in ("jsonl.gz", "jsonl.zst", "parquet"):
        documents = [{"path": f"packed.{ending}", "format": "text_rows"}]
        found = made(settings(documents=documents), data, tokenizer, ending)
        assert found.counts["train"]["tokens"] == expected.counts["train"]["tokens"]
        assert texts(found, "train", tokenizer) == texts(expected, "train", tokenizer)


class Killed(Exception):
    pass


def test_interruptions_do_not_change_the_corpus(
    data: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is interrupted at random documents several times; its files equal those of an uninterrupted run."""
    draw = random.Random(0)
    rows = [
        draw.choice([{"text": draw.choice(TEXTS)}, {"text": f"fine {n}"}, {"text": " "}, {}])
        for n in range(400)
    ]
    write(data / "mixed.jsonl", rows)
    chosen = settings(
        documents=[*source_setting("mixed", "text_rows"), *source_setting("train", "text_rows")],
        shard_tokens=100,
        max_bad_rows=1000,
    )
    undisturbed = made(chosen, data, tokenizer, "undisturbed")
    assert len(undisturbed.train[0].index["shards"]) > 4
    append = writing.ShardWriter.append
    kills = 0
    for _ in range(200):
        left = draw.randint(1, 15)

        def dying(writer: Any, documents: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            append(writer, documents)

        monkeypatch.setattr(writing.ShardWriter, "append", dying)
        try:
            corpus = made(chosen, data, tokenizer, "killed")
            break
        except Killed:
            kills += 1
    assert kills > 3
    assert corpus.counts == undisturbed.counts
    for part in ("train", "validation"):
        for found, expected in zip(getattr(corpus, part), getattr(undisturbed, part), strict=True):
            assert found.index == expected.index


def test_invalid_settings() -> None:
    for changes, message in (
        ({"validation": source_setting("held", "text_rows")}, "either `validation` sources or"),
        ({"validation_share": 0.0}, "either `validation` sources or"),
        ({"validation_share": 1.0}, "less than 1"),
        ({"documents": [], "validation_share": 0.1}, "without `documents` the corpus's own held-out"),
        ({"documents": [{**source_setting("a", "text_rows")[0], "weight": 0.0}]}, "greater than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**changes)
