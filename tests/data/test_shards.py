"""Token shards: what is written is read, and damage is noticed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamita.data.shards import TokenShards, encode_documents, write_shards
from llamita.errors import DataError


def documents(count: int = 50, vocabulary: int = 1000) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(vocabulary) for _ in range(rng.randint(1, 40))] for _ in range(count)]


def test_the_stream_comes_back(tmp_path: Path) -> None:
    written = documents()
    stream = [id for document in written for id in document]
    index = write_shards(iter(written), tmp_path, 1000, shard_tokens=100, tokenizer="abc")
    shards = TokenShards(tmp_path, tokenizer="abc")
    shards.verify()
    assert shards.tokens == index["tokens"] == len(stream)
    assert shards.documents == sum(shard["documents"] for shard in index["shards"]) == 50
    assert {shard["tokens"] for shard in index["shards"][:-1]} == {100}
    assert shards.read(0, len(stream)).tolist() == stream
    assert shards.read(95, 305).tolist() == stream[95:305]  # across several shards
    assert shards.read(200, 300).tolist() == stream[200:300]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65536, "<u2"), (65537, "<u4")])
def test_the_bytes_are_little_endian(tmp_path: Path, vocabulary: int, dtype: str) -> None:
    written = [[vocabulary - 1, 258], [1]]
    write_shards(written, tmp_path, vocabulary, shard_tokens=100, tokenizer="abc")
    raw = (tmp_path / "shard-00000.bin").read_bytes()
    assert np.frombuffer(raw, dtype).tolist() == [vocabulary - 1, 258, 1]
    assert (
        json.loads((tmp_path / "index.json").read_text())["dtype"]
        == {"<u2": "uint16", "<u4": "uint32"}[dtype]
    )
    assert TokenShards(tmp_path).read(0, 3).tolist() == [vocabulary - 1, 258, 1]


def test_rows_are_the_stream_without_a_gap(tmp_path: Path) -> None:
    write_shards(documents(), tmp_path, 1000, shard_tokens=100, tokenizer="abc")
    shards = TokenShards(tmp_path)
    rows = shards.rows(32)
    assert len(rows) == shards.tokens // 32
    assert rows.unused == shards.tokens % 32
    stream = [id for index in range(len(rows)) for id in rows[index]["input_ids"].tolist()]
    assert stream == shards.read(0, len(rows) * 32).tolist()
    assert rows[0].keys() == {"input_ids", "labels"}
    assert rows[0]["labels"].tolist() == rows[0]["input_ids"].tolist()


def test_rows_that_keep_documents_apart(tmp_path: Path) -> None:
    """Each restarts at its first token, 1, which is no label; so does the rest of one from an earlier row."""
    write_shards([[1, 5, 6], [1, 7], [1, 8, 9, 4, 3]], tmp_path, 10, shard_tokens=100, tokenizer="abc")
    first = TokenShards(tmp_path).rows(5, document_start=1)[0]
    assert first["input_ids"].tolist() == [1, 5, 6, 1, 7]
    assert first["position_ids"].tolist() == [0, 1, 2, 0, 1]
    assert first["labels"].tolist() == [-100, 5, 6, -100, 7]
    write_shards([[1, 5, 6, 7], [1, 8, 9]], tmp_path, 10, shard_tokens=100, tokenizer="abc")
    second = TokenShards(tmp_path).rows(3, document_start=1)[1]
    assert second["input_ids"].tolist() == [7, 1, 8]
    assert second["position_ids"].tolist() == [0, 0, 1]
    assert second["labels"].tolist() == [7, -100, 8]


def test_damage_is_noticed(tmp_path: Path) -> None:
    write_shards(documents(), tmp_path, 1000, shard_tokens=100, tokenizer="abc")
    shard = tmp_path / "shard-00001.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"shard-00001.bin: 198 bytes; expected 200 by index.json"):
        TokenShards(tmp_path)
    shard.write_bytes(whole[:-2] + b"\0\0")
    with pytest.raises(DataError, match=r"shard-00001.bin: its checksum"):
        TokenShards(tmp_path).verify()
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00001.bin: 0 bytes"):
        TokenShards(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index.json: no valid JSON"):
        TokenShards(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match=r"no index.json; expected token shards"):
        TokenShards(tmp_path)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write_shards(documents(), tmp_path, 1000, shard_tokens=100, tokenizer="abc")
    with pytest.raises(DataError, match="written with tokenizer abc"):
        TokenShards(tmp_path, tokenizer="xyz")


def test_impossible_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside the vocabulary of 10"):
        write_shards([[3, 10]], tmp_path, 10, shard_tokens=100, tokenizer="abc")
    with pytest.raises(DataError, match="no token to write"):
        write_shards([], tmp_path, 10, shard_tokens=100, tokenizer="abc")
    write_shards([[1, 2, 3]], tmp_path, 10, shard_tokens=100, tokenizer="abc")
    with pytest.raises(DataError, match="3 tokens; expected at least one row of 4"):
        TokenShards(tmp_path).rows(4)


def test_documents_stand_between_bos_and_eos(tokenizer: Any) -> None:
    texts = ["what is red", "a </s> b <s>", ""] * 3
    encoded = list(encode_documents(tokenizer, iter(texts), batch=2))
    assert [tokenizer.decode(ids[1:-1]) for ids in encoded] == texts
    for ids in encoded:
        assert ids[0] == 1
        assert ids[-1] == 2
        assert not {0, 1, 2} & set(ids[1:-1])  # a mark inside a text is text
