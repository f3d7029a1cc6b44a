"""Dialogues sampled from a stub that sometimes follows its instruction: what is selected, what is dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamita.data.instructions import Instruction
from llamita.data.sources import read_dialogues
from llamita.errors import ConfigError, DataError
from llamita.gatt import builder, stage
from llamita.gatt.settings import GattSettings
from llamita.sampling import engines
from llamita.sampling.interface import Samples
from llamita.settings import Source

from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import write
from ..helpers.tiny import save_tiny_model, save_tiny_reward_model

CHOSEN = {
    "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
    "instructions": ["word"],
    "dialogues": 12,
    "min_turns": 2,
    "max_turns": 4,
    "num_generations": 3,
    "max_new_tokens": 40,
    "test_dialogues": 3,
    "test_turns": 5,
}
sampled_prompts: list[str] = []


class StubSampler:
    """Two of three answers contain the required word, one of them more probable; none after "lose"."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tokenizer = chatml_tokenizer()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        num_generations: int,
        temperature: float,
        seed: str,
        keys: Sequence[int],
        label: str,
    ) -> Samples:
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        sampled_prompts.extend(texts)
        answers = []
        for text in texts:
            word = text.split('"')[-2]
            lost = "lose" in text.split("<|im_start|>user")[-1]
            answers += ["no", f"the {word} is here", "never" if lost else f"the {word}"]
            if lost:
                answers[-2] = "gone"
        ids = [self.tokenizer(answer)["input_ids"] + [2] for answer in answers]
        logprobs = [
            [-1.0 if "is here" in answer else -2.0] * len(row)
            for answer, row in zip(answers, ids, strict=True)
        ]
        of = [index for index in range(len(prompts)) for _ in range(3)]
        return Samples(of, ids, logprobs, [True] * len(ids))


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    rows = [f"question {n} lose ?" if n % 8 == 0 else f"question {n} ?" for n in range(40)]
    (tmp_path / "data").mkdir()
    write(
        tmp_path / "data" / "prompts.jsonl",
        [{"messages": [{"role": "user", "content": row}]} for row in rows],
    )
    save_tiny_model(tmp_path / "model", chatml_tokenizer(), max_position_embeddings=1024)
    monkeypatch.setattr(engines, "local_sampler", StubSampler)
    sampled_prompts.clear()
    return {"model": tmp_path / "model", "data": tmp_path / "data"}


def run(inputs: dict[str, Path], out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return stage.run(GattSettings.model_validate_json(json.dumps(CHOSEN | changes)), inputs, out)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_most_probable_answer_that_follows_the_instruction_is_selected(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    metrics = run(inputs, tmp_path / "out")
    made = rows(tmp_path / "out" / "gatt.jsonl")
    assert metrics["dialogues"] == len(made) == 12 - metrics["too_short"]
    assert 0 < metrics["too_short"] < 12, "some lose it too early"
    assert sum(metrics["turns"].values()) == len(made)
    assert metrics["samples"]["word"] == 3 * len(sampled_prompts)
    assert 0.5 < metrics["kept_share"]["word"] < 2 / 3
    shortened = 0
    for row in made:
        word = row["instruction"].split('"')[1]
        shortened += row["instruction"].startswith("Word:")
        assert 4 <= len(row["messages"]) <= 8
        for message in row["messages"]:
            if message["role"] == "assistant":
                assert message["content"] == f"the {word} is here"
            else:
                assert "lose" not in message["content"]
    assert 0 < shortened < len(made)


def test_an_answer_with_a_special_token_or_without_text_is_not_selected(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such answers are the most probable ones here, and follow the instruction, as all do."""
    whole = StubSampler.sample

    def changed(self: StubSampler, *values: Any, **named: Any) -> Samples:
        samples = whole(self, *values, **named)
        special = self.tokenizer.convert_tokens_to_ids("<|im_start|>")
        for number, ids in enumerate(samples.answer_ids):
            if number % 3 == 0:
                samples.answer_ids[number], samples.logprobs[number] = ids[-1:], [-0.1]
            elif number % 3 == 1:
                samples.answer_ids[number], samples.logprobs[number] = [*ids[:2], special, *ids[2:]], [-0.2]
        return samples

    monkeypatch.setattr(StubSampler, "sample", changed)
    monkeypatch.setattr(Instruction, "is_followed_by", lambda *_: True)
    run(inputs, tmp_path / "out")
    for row in rows(tmp_path / "out" / "gatt.jsonl"):
        word = row["instruction"].split('"')[1]
        assert {message["content"] for message in row["messages"][1::2]} <= {f"the {word}", "never"}


def test_the_instruction_is_on_every_message_for_sampling_and_in_no_message_of_the_output(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(inputs, tmp_path / "out")
    last = max(sampled_prompts, key=len)
    assert last.count("Use the word") == last.count("<|im_start|>user") > 2
    written = (tmp_path / "out" / "gatt_without.jsonl").read_text()
    assert "Use the word" not in written
    assert "Word:" not in written
    source = Source(path="gatt.jsonl", format="messages")
    read = read_dialogues([source], tmp_path / "out")
    assert [one.messages for one in read] == [
        row["messages"] for row in rows(tmp_path / "out" / "gatt_without.jsonl")
    ]
    assert all(one.instruction for one in read)


def test_test_dialogues_share_no_message_with_training_dialogues(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(inputs, tmp_path / "out")
    test = rows(tmp_path / "out" / "test.jsonl")
    assert len(test) == 3
    trained = (tmp_path / "out" / "gatt.jsonl").read_text()
    for row in test:
        assert len(row["questions"]) == 5
        assert row["check"]["kind"] == "word"
        assert row["check"]["value"] in row["instruction"]
        assert not any(json.dumps(question)[1:-1] in trained for question in row["questions"])


def test_a_killed_run_resumes_after_the_last_finished_turn(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(inputs, tmp_path / "undisturbed")
    sample_turn = builder.DialogueBuilder._sample_turn

    def killed(self: builder.DialogueBuilder, turn: int, prompts: dict[int, list[int]]) -> None:
        if turn == 2:
            raise KeyboardInterrupt
        sample_turn(self, turn, prompts)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(builder.DialogueBuilder, "_sample_turn", killed)
        run(inputs, tmp_path / "killed")
    sampled_prompts.clear()
    run(inputs, tmp_path / "killed")
    assert min(text.count("<|im_start|>user") for text in sampled_prompts) == 3, "no turn is sampled again"
    for name in (stage.TRAIN, stage.ABLATION, stage.TEST):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_full_context_ends_a_dialogue(inputs: dict[str, Path], tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "short", chatml_tokenizer(), max_position_embeddings=250)
    metrics = run(inputs | {"model": tmp_path / "short"}, tmp_path / "out", max_turns=4)
    assert metrics["out_of_context"] > 0


def test_a_turn_fits_in_the_context_of_every_model(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reward models read an EOS after a truncated answer."""

    def scores(prompts: Sequence[Sequence[int]], *_: object) -> Tensor:
        return torch.ones(len(prompts))

    monkeypatch.setattr(stage, "Scorer", lambda *_, **__: scores)
    tokenizer = chatml_tokenizer()
    folders = {name: tmp_path / name for name in ("helpfulness", "safety")}
    for name in folders:
        save_tiny_reward_model(folders[name], tokenizer, max_position_embeddings=1024)
    assert run(inputs | folders, tmp_path / "all")["out_of_context"] == 0
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in sampled_prompts)
    for context, stopped in ((longest + 41, False), (longest + 40, True)):
        save_tiny_reward_model(folders["safety"], tokenizer, max_position_embeddings=context)
        metrics = run(inputs | folders, tmp_path / str(context))
        assert (metrics["out_of_context"] > 0) == stopped


def test_errors(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts: 40 different last messages; expected at least \d+"):
        run(inputs, tmp_path / "out", max_turns=39)
    with pytest.raises(ValueError, match="min_turns 5 is above max_turns 4"):
        run(inputs, tmp_path / "out", min_turns=5)
    with pytest.raises(DataError, match="none of 12 dialogues followed its instruction for 2 turns"):
        run(
            inputs,
            tmp_path / "out",
            instructions=["lower_case"],
            prompts=CHOSEN["prompts"],
            max_new_tokens=1000,
        )


def test_reward_models_select_among_the_answers_that_follow_the_instruction(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helpfulness model likes the short answers, the safety model finds one of them unsafe."""
    scored_by: list[str] = []

    def loaded(folder: Path, tokenizer: Any, **_: Any) -> Any:
        def scores(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], _: object) -> Tensor:
            texts = [tokenizer.decode(answer) for answer in answers]
            assert not any("<|" in text for text in texts), "the EOS is not scored"
            scored_by.append(folder.name)
            if folder.name == "safety":
                return torch.tensor(
                    [0.1 if "river" in text and "here" not in text else 0.9 for text in texts]
                )
            return torch.tensor([1 / (1 + len(text)) for text in texts])

        return scores

    monkeypatch.setattr(stage, "Scorer", loaded)
    folders = {name: tmp_path / name for name in ("helpfulness", "safety")}
    for folder in folders.values():
        save_tiny_reward_model(folder, chatml_tokenizer(), max_position_embeddings=1024)
    run(inputs | folders, tmp_path / "out", dialogues=40, safety_threshold=0.15)
    assert set(scored_by) == {"helpfulness", "safety"}
    answers_by_word = [
        (row["instruction"].split('"')[1], message["content"])
        for row in rows(tmp_path / "out" / "gatt.jsonl")
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    assert {word for word, _ in answers_by_word} > {"river"}
    for word, answer in answers_by_word:
        assert answer == (f"the {word} is here" if word == "river" else f"the {word}")
    with pytest.raises(ConfigError, match="only the reward model helpfulness is given"):
        run(inputs | {"helpfulness": tmp_path}, tmp_path / "one")


def test_rounds_sample_differently(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in (None, "v1", "v2"):
        run(inputs, tmp_path / str(name), round=name)
    made = [(tmp_path / name / "gatt.jsonl").read_text() for name in ("None", "v1", "v2")]
    assert len(set(made)) == 3
