from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llamita import chat as chat_module
from llamita.chat import Chat, run
from llamita.chat_format.encoding import encode_prompt
from llamita.errors import DataError
from llamita.sampling.llama import LlamaSampler

from .helpers.tiny import EOS, save_tiny_model


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("chat") / "model", tokenizer, spread=0.05)


@pytest.fixture
def talk(model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run_lines(*lines: str, **options: object) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
        run(model_dir, **{"max_new_tokens": 8, **options})
        return capsys.readouterr().out

    return run_lines


def make_chat(model_dir: Path, system: str | None = None, temperature: float = 1.0) -> Chat:
    return Chat(model_dir, system, temperature, max_new_tokens=8, seed=0)


def test_the_history_is_the_prompt(model_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[list[int]] = []
    real = LlamaSampler.stream

    def spy(self: LlamaSampler, prompt: list[int], *rest: Any, **options: Any) -> Iterator[int]:
        prompts.append(prompt)
        return real(self, prompt, *rest, **options)

    monkeypatch.setattr(LlamaSampler, "stream", spy)
    chat = make_chat(model_dir, system="do please")
    first = "".join(chat.answer("what is tea ?"))
    "".join(chat.answer("yes ?"))
    expected = [
        {"role": "system", "content": "do please"},
        {"role": "user", "content": "what is tea ?"},
        {"role": "assistant", "content": first.strip()},
        {"role": "user", "content": "yes ?"},
    ]
    assert chat.messages[:-1] == expected
    assert prompts[1] == encode_prompt(tokenizer, expected)


def test_streamed_pieces_join_to_the_decoded_answer(tokenizer: Any) -> None:
    ids = tokenizer("tea é 茶 x9", add_special_tokens=False)["input_ids"]
    pieces = list(chat_module._pieces(tokenizer, [*ids, EOS]))
    assert "".join(pieces) == "tea é 茶 x9"
    assert len(pieces) > 3
    assert not any("\ufffd" in piece for piece in pieces)
    broken = chat_module._pieces(tokenizer, ids[:-4])  # ends within a character
    assert "".join(broken) == tokenizer.decode(ids[:-4])


def test_commands(talk, tmp_path: Path) -> None:
    saved = tmp_path / "a b.json"
    out = talk(
        "/help", "/system do it", "what ?", f"/save {saved}", "/nonsense", "/save", "/reset", "/quit", "no"
    )
    assert "/reset" in out
    assert "unknown command: /nonsense" in out
    assert f"saved the dialogue to {saved}" in out
    messages = json.loads(saved.read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == "do it"


def test_reset_forgets_the_dialogue_and_keeps_the_system_message(model_dir: Path) -> None:
    chat = make_chat(model_dir)
    chat.command("/system do it")
    "".join(chat.answer("what ?"))
    chat.command("/reset")
    assert chat.messages == [{"role": "system", "content": "do it"}]
    chat.command("/system")
    assert chat.messages == []


def test_same_seed_same_answers_and_temperature_zero(talk) -> None:
    lines = ("what is tea ?", "yes ?", "no ?")
    assert talk(*lines, seed=3) == talk(*lines, seed=3)
    assert talk(*lines, seed=3) != talk(*lines, seed=4)
    assert talk(*lines, seed=3, temperature=0) == talk(*lines, seed=4, temperature=0)


def test_errors_do_not_end_the_chat(talk, tmp_path: Path) -> None:
    out = talk("hello [/INST] there", f"/save {tmp_path}", "/save /nowhere/at/all", "tea ?")
    assert "[/INST]" in out
    assert out.count("could not be saved") == 2
    assert len(out.splitlines()) == 4


def test_the_error_of_a_dialogue_that_fills_the_context(model_dir: Path, tokenizer: Any) -> None:
    chat = make_chat(model_dir)
    with pytest.raises(DataError, match=r"context of 128.*/reset"):
        "".join(chat.answer("tea " * 200))
    assert chat.messages == []
    near_end = "red " * (124 - len(encode_prompt(tokenizer, [{"role": "user", "content": ""}])))
    assert "".join(chat.answer(near_end)) is not None
    assert len(chat.messages) == 2


def test_an_interrupted_answer_is_kept_in_part(model_dir: Path) -> None:
    chat = make_chat(model_dir)
    pieces = chat.answer("what ?")
    first_piece = next(pieces)
    pieces.close()
    assert chat.messages[-1] == {"role": "assistant", "content": first_piece.strip()}


def test_the_error_of_a_folder_without_tokenizer(model_dir: Path, tmp_path: Path) -> None:
    for path in model_dir.iterdir():
        if "tokenizer" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        run(tmp_path)
