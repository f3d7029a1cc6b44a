"""The tokenizer: Llama's ids, its units, and that decoding returns each text exactly."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from llamita.tokenizer.bpe import BYTES, SPECIAL, tokens_per_tag, train_bpe


def tokens(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_llama_ids(tokenizer: Any) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert tokenizer.convert_ids_to_tokens(list(range(3, 259))) == BYTES
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token_id == 0
    assert tokenizer("what")["input_ids"][0] == 1  # BOS before a text, no EOS after it
    assert tokenizer("what")["input_ids"][-1] != 2
    assert tokenizer("\n", add_special_tokens=False)["input_ids"][-1] == 13  # as in Llama 2
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_units(tokenizer: Any) -> None:
    words = [" what", " is", " the", " color", " of", " bolo", " ?"]
    assert tokens(tokenizer, "what is the color of bolo ?") == words
    assert tokens(tokenizer, "is 20") == [" is", " ", "<0x32>", "<0x30>"]
    assert tokens(tokenizer, "is\n\nis")[:3] == [" is", "<0x0A>", "<0x0A>"]
    assert tokens(tokenizer, "is  is") == [" is", " ", " is"]
    assert tokens(tokenizer, "é") == [" ", "<0xC3>", "<0xA9>"]


def test_numbers_are_split_into_digits() -> None:
    tokenizer = train_bpe(["in 2026 it is 2026 and x2026"] * 100, 400)
    assert tokens(tokenizer, "in 2026 x2026") == [" in", " ", *"2026", " x", *"2026"]


def test_tags_are_tokens_even_without_a_chat_to_train_on(tokenizer: Any) -> None:
    assert tokens_per_tag(tokenizer) == {"[INST]": 1, "[/INST]": 1, "<<SYS>>": 1, "<</SYS>>": 1}
    assert tokens(tokenizer, "[INST] is [/INST]") == [" [INST]", " is", " [/INST]"]


def test_a_tag_of_several_tokens_is_counted(tokenizer: Any) -> None:
    other = train_bpe(["a"], 320)  # too little text to repeat the tags
    assert tokens_per_tag(other)["[INST]"] == len(" [INST]")


def test_every_text_is_decoded_exactly(tokenizer: Any) -> None:
    rng = random.Random(0)
    texts = [
        "",
        " ",
        "  ",
        "\n",
        " a",
        "a ",
        "  a  b  ",
        "\t\r\n",
        "▁",
        "a▁ ▁b",
        "<0x41>",
        "\u2028",
        "\0",
        "ﷺ",
    ]
    ranges = [(0, 0x7F), (0, 0xFF), (0, 0xD7FF), (0xE000, 0x10FFFF), (0x20, 0x22), (0x2580, 0x2582)]
    for _ in range(500):
        low, high = rng.choice(ranges)
        texts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(0, 20))))
    for text in texts:
        ids = tokenizer(text, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert 0 not in ids


def test_names_of_byte_tokens_in_a_text_are_text(tokenizer: Any) -> None:
    assert 3 + 0x41 not in tokenizer("<0x41>")["input_ids"]


def test_training_is_deterministic() -> None:
    text = ["the cat and the dog and the cow", "a cow is a cow"] * 50
    assert train_bpe(text, 400).get_vocab() == train_bpe(iter(text), 400).get_vocab()


def test_of_equally_rare_characters_the_lowest_code_points_are_in_the_vocabulary() -> None:
    """The trainer's own choice is random, so a run could not be repeated."""
    rare = [chr(0x4E00 + number) for number in range(200)]
    frequent = "\u9fa5\u9fa4"
    text = ["\n".join([*reversed(rare), frequent, frequent])]
    trained = set(train_bpe(text, 340).get_vocab()) - {*SPECIAL, *BYTES}
    assert {token for token in trained if len(token) == 1} == {" ", *frequent, *rare[:37]}  # 40 of 203
    assert {token for token in trained if len(token) > 1} == {frequent}  # deciding ties adds no merge


def test_the_vocabulary_has_at_most_the_given_size(tokenizer: Any) -> None:
    rng = random.Random(0)
    text = ["".join(rng.choices("abcdefgh ", k=500)) for _ in range(20)]
    assert len(train_bpe(text, 400)) == 400
    assert len(train_bpe(["the cat"], 400)) < 400


def test_plain_autotokenizer_reads_it(tokenizer: Any, tmp_path: Path) -> None:
    """In a process that can't import llamita; a Llama's config in the same folder has no influence."""
    for name in ("alone", "beside"):
        tokenizer.save_pretrained(str(tmp_path / name))
    (tmp_path / "beside" / "config.json").write_text('{"model_type": "llama"}')
    code = f"""
import sys
sys.modules["llamita"] = None
from transformers import AutoTokenizer
messages = [{{"role": "system", "content": "be 42"}}, {{"role": "user", "content": "é  b"}}]
for name in ("alone", "beside"):
    tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r} + "/" + name)
    print(tokenizer.apply_chat_template(messages)["input_ids"])
    print(tokenizer("a b")["input_ids"], tokenizer.pad_token_id, tokenizer.clean_up_tokenization_spaces)
    print(tokenizer.decode(tokenizer("don't , you ?")["input_ids"], skip_special_tokens=True))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    messages = [{"role": "system", "content": "be 42"}, {"role": "user", "content": "é  b"}]
    template = tokenizer.apply_chat_template(messages, return_dict=False)
    assert run.stdout == f"{template}\n{tokenizer('a b')['input_ids']} 0 False\ndon't , you ?\n" * 2
