"""The corpus: which documents are held out, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.data.shards import TokenShards
from llamita.errors import DataError
from llamita.model.checkpoint import tokenizer_hash
from llamita.pretrain.corpus import Corpus, write_corpus
from llamita.pretrain.settings import PretrainSettings

from ..training.material import MODEL, source, write

TEXTS = [f"it is red today {number}" for number in range(300)]


def settings(**changes: Any) -> PretrainSettings:
    chosen = {
        "documents": source("train", "text_rows"),
        "validation_share": 0.2,
        "model": MODEL,
        "context_length": 16,
    }
    return PretrainSettings.model_validate(chosen | changes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": text} for text in [*TEXTS, *TEXTS[::-1], *TEXTS[::7], " "]]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "held.jsonl", [{"text": "yes ä"}, {"text": "fine thanks"}])
    return tmp_path


def test_a_share_keeps_equal_documents_on_one_side(data: Path) -> None:
    train, held_out = (list(Corpus(settings(), data, part)) for part in ("train", "validation"))
    assert not set(train) & set(held_out)
    assert sorted(train + held_out) == sorted([*TEXTS, *TEXTS, *TEXTS[::7]])
    assert 0.12 < len(set(held_out)) / len(TEXTS) < 0.28
    assert held_out != list(Corpus(settings(seed=1), data, "validation"))
    assert held_out == list(Corpus(settings(documents=source("train", "text_rows")), data, "validation"))


def test_validation_sources_are_taken_as_they_are(data: Path) -> None:
    chosen = settings(validation=source("held", "text_rows"), validation_share=0)
    assert list(Corpus(chosen, data, "validation")) == ["yes ä", "fine thanks"]
    assert set(Corpus(chosen, data, "train")) == set(TEXTS)


def test_shards_and_counts(
    data: Path, tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(validation=source("held", "text_rows"), validation_share=0, shard_tokens=1000)
    counts = write_corpus(chosen, tokenizer, data, tmp_path / "shards")
    held_out = TokenShards(tmp_path / "shards" / "validation", tokenizer_hash(tokenizer))
    texts = ["yes ä", "fine thanks"]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = [1, *encoded[0], 2, 1, *encoded[1], 2]
    assert held_out.read(0, held_out.tokens).tolist() == ids
    size = len("yes ä".encode()) + len("fine thanks")
    assert counts["validation"] == {
        "documents": 2,
        "tokens": len(ids),
        "bytes": size,
        "bytes_per_token": size / len(ids),
        "skipped": {},
    }
    assert counts["train"]["documents"] == 643
    assert counts["train"]["skipped"] == {"empty document": 1}
    assert capsys.readouterr().out.count("empty document") == 1  # by the reader alone
    assert len(list((tmp_path / "shards" / "train").glob("*.bin"))) > 1


def test_what_is_refused(data: Path, tmp_path: Path, tokenizer: Any) -> None:
    write(data / "one.jsonl", [{"text": TEXTS[0]}])
    nothing_held_out = settings(documents=source("one", "text_rows"), validation_share=1e-9)
    with pytest.raises(DataError, match=r"validation documents: .*one document; validation_share: 1e-09 of"):
        write_corpus(nothing_held_out, tokenizer, data, tmp_path / "shards")
    write(data / "broken.jsonl", [{"text": "fine"}, {"txt": "fine"}])
    with pytest.raises(DataError, match=r"broken.jsonl:2: field 'text' is missing"):
        write_corpus(settings(documents=source("broken", "text_rows")), tokenizer, data, tmp_path / "shards")


def test_settings_that_cannot_be(data: Path) -> None:
    for changes, message in (
        ({"context_length": 129}, "above the model's max_position_embeddings 128"),
        ({"validation": source("held", "text_rows")}, "either `validation` sources or"),
        ({"validation_share": 0.0}, "either `validation` sources or"),
        ({"validation_share": 1.0}, "less than 1"),
        ({"documents": []}, "documents"),
        ({"model": MODEL | {"num_key_value_heads": 3}}, "does not divide"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**changes)
