"""Token shards: they are read as written, and damage is detected."""

from __future__ import annotations

import json
import random
import tracemalloc
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from llamita.corpus.shards import ShardWriter, TokenShards
from llamita.corpus.token_rows import TokenRows
from llamita.errors import DataError
from llamita.hashes import file_hash

from ..helpers.streams import as_encoded, write_stream


def documents(count: int = 50, vocabulary: int = 1000) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(vocabulary) for _ in range(rng.randint(1, 40))] for _ in range(count)]


def test_the_stream_is_read_as_written(tmp_path: Path) -> None:
    written = documents()
    stream = [id for document in written for id in document]
    shards = write_stream(written, tmp_path, 1000)
    assert shards.tokens == len(stream)
    assert shards.documents == 50
    assert len(shards.index["shards"]) > 5
    assert all(100 <= shard["tokens"] < 140 for shard in shards.index["shards"][:-1])
    assert shards.read(0, len(stream)).tolist() == stream
    assert shards.read(95, 305).tolist() == stream[95:305]  # across several shards
    assert shards.read(200, 300).tolist() == stream[200:300]


def test_document_starts_are_read_as_written(tmp_path: Path) -> None:
    written = documents()
    begins = [0, *accumulate(len(document) for document in written)][:-1]
    shards = write_stream(written, tmp_path, 1000)
    for start, stop in (
        (0, shards.tokens),
        (95, 305),
        (begins[3], begins[3] + 1),
        (begins[3] + 1, begins[3] + 2),
    ):
        expected = [begin - start for begin in begins if start <= begin < stop]
        assert shards.document_starts(start, stop).tolist() == expected


def test_document_starts_of_a_row_are_found_without_a_copy_of_all(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 1000, [])
    writer.append(as_encoded([[1]] * 50_000))
    writer.finish("abc")
    shards = TokenShards(tmp_path)
    tracemalloc.start()
    assert len(shards.document_starts(500, 600)) == 100
    assert tracemalloc.get_traced_memory()[1] < 50_000  # all starts have 400,000 bytes
    tracemalloc.stop()


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65536, "<u2"), (65537, "<u4")])
def test_the_bytes_are_little_endian(tmp_path: Path, vocabulary: int, dtype: str) -> None:
    shards = write_stream([[vocabulary - 1, 258], [1]], tmp_path, vocabulary)
    raw = (tmp_path / "shard-00000.bin").read_bytes()
    assert np.frombuffer(raw, dtype).tolist() == [vocabulary - 1, 258, 1]
    assert json.loads((tmp_path / "index.json").read_text())["dtype"] == np.dtype(dtype).name
    assert np.frombuffer((tmp_path / "shard-00000.starts").read_bytes(), "<u8").tolist() == [0, 2]
    assert shards.read(0, 3).tolist() == [vocabulary - 1, 258, 1]


def test_a_writer_resumes_after_existing_shards(tmp_path: Path) -> None:
    written = documents()
    whole = write_stream(written, tmp_path / "whole", 1000, shard_tokens=10**6)
    first = ShardWriter(tmp_path / "parts", 1000, [])
    first.append(as_encoded(written[:20]))
    first.seal()
    first.append(as_encoded(written[20:30]))  # lost: the shard was not closed
    second = ShardWriter(tmp_path / "parts", 1000, list(first.shards))
    second.append(as_encoded(written[20:]))
    second.finish("abc")
    parts = TokenShards(tmp_path / "parts")
    assert parts.read(0, parts.tokens).tolist() == whole.read(0, whole.tokens).tolist()
    assert [shard["documents"] for shard in parts.index["shards"]] == [20, 30]
    assert all(file_hash(path) == expected for path, expected in parts.checksums())


def test_rows_are_the_stream_without_gaps(tmp_path: Path) -> None:
    shards = write_stream(documents(), tmp_path, 1000)
    rows = TokenRows([shards], 32, isolate_documents=False)
    assert len(rows) == shards.tokens // 32
    assert rows.unused == shards.tokens % 32
    stream = [id for index in range(len(rows)) for id in rows[index]["input_ids"].tolist()]
    assert stream == shards.read(0, len(rows) * 32).tolist()
    assert rows[0].keys() == {"input_ids", "labels"}
    assert rows[0]["labels"].tolist() == rows[0]["input_ids"].tolist()


def test_rows_of_several_streams(tmp_path: Path) -> None:
    streams = [
        write_stream([[number * 100 + place for place in range(length)]], tmp_path / str(number), 1000)
        for number, length in enumerate((10, 3, 9))
    ]
    rows = TokenRows(streams, 4, isolate_documents=False)
    assert rows.counts == [2, 0, 2]
    assert rows.unused == 2 + 3 + 1
    assert [rows[index]["input_ids"].tolist() for index in range(len(rows))] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [200, 201, 202, 203],
        [204, 205, 206, 207],
    ]


def test_rows_with_isolated_documents(tmp_path: Path) -> None:
    """Positions restart at each first token, which has no label; also for the rest of a document."""
    shards = write_stream([[1, 5, 6], [1, 7], [1, 8, 9, 4, 3]], tmp_path / "a", 10)
    first = TokenRows([shards], 5, isolate_documents=True)[0]
    assert first["input_ids"].tolist() == [1, 5, 6, 1, 7]
    assert first["position_ids"].tolist() == [0, 1, 2, 0, 1]
    assert first["labels"].tolist() == [-100, 5, 6, -100, 7]
    shards = write_stream([[1, 5, 6, 7], [1, 8, 9]], tmp_path / "b", 10)
    second = TokenRows([shards], 3, isolate_documents=True)[1]
    assert second["input_ids"].tolist() == [7, 1, 8]
    assert second["position_ids"].tolist() == [0, 0, 1]
    assert second["labels"].tolist() == [7, -100, 8]


def test_damage_is_detected(tmp_path: Path) -> None:
    write_stream(documents(), tmp_path, 1000)
    for name in ("shard-00001.bin", "shard-00001.starts"):
        shard = tmp_path / name
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-1])
        with pytest.raises(
            DataError, match=rf"{name}: the file has {len(whole) - 1:,} bytes, but {len(whole):,} "
        ):
            TokenShards(tmp_path)
        shard.unlink()
        with pytest.raises(DataError, match=rf"{name}: the file has 0 bytes"):
            TokenShards(tmp_path)
        shard.write_bytes(whole)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index.json: invalid JSON"):
        TokenShards(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match=r"index.json does not exist; expected complete token shards"):
        TokenShards(tmp_path)


def test_another_tokenizer_raises_an_error(tmp_path: Path) -> None:
    write_stream(documents(), tmp_path, 1000)
    with pytest.raises(DataError, match="written with tokenizer abc"):
        TokenShards(tmp_path, tokenizer="xyz")


def test_shards_without_a_full_row_or_with_unknown_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="token id 10 is outside the vocabulary of 10"):
        write_stream([[3, 10]], tmp_path / "a", 10)
    shards = write_stream([[1, 2, 3]], tmp_path / "b", 10)
    with pytest.raises(DataError, match="3 tokens; expected at least one row of 4"):
        TokenRows([shards], 4, isolate_documents=False)
