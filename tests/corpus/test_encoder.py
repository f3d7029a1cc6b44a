"""Ids of documents, compared with those of the tokenizer itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from llamita.corpus.encoder import DocumentEncoder

TEXTS = ["what is red", "a </s> b <s>", "", "ä 12 fine\n thanks"] * 3


def test_documents_are_between_bos_and_eos(tokenizer: Any) -> None:
    ids, lengths = DocumentEncoder(tokenizer)(TEXTS)
    documents = np.split(ids, np.cumsum(lengths)[:-1])
    options = {"add_special_tokens": False, "split_special_tokens": True}
    assert [document.tolist() for document in documents] == [
        [1, *tokenizer(text, **options)["input_ids"], 2] for text in TEXTS
    ]
    assert all(
        not {0, 1, 2} & set(document[1:-1].tolist()) for document in documents
    )  # special tokens in a document are text


def test_the_tokenizer_is_not_modified(tokenizer: Any) -> None:
    before = tokenizer("<s> fine")["input_ids"]
    DocumentEncoder(tokenizer)(TEXTS)
    assert tokenizer("<s> fine")["input_ids"] == before


def test_no_documents(tokenizer: Any) -> None:
    ids, lengths = DocumentEncoder(tokenizer)([])
    assert (ids.size, lengths.size) == (0, 0)
