"""The stage with a stub that answers by its system message, and a stub of the safety model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamita.data.sources import read_dialogues
from llamita.distillation import stage
from llamita.distillation.settings import DistillationSettings
from llamita.errors import DataError
from llamita.sampling import engines
from llamita.sampling.interface import Samples
from llamita.settings import Source

from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import turn, write
from ..helpers.tiny import save_tiny_model, save_tiny_reward_model

CHOSEN = {
    "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
    "preprompts": {
        "templates": ["be {adjective} ."],
        "adjectives": ["kind", "wise"],
        "answer_templates": {"illicit": "it is not legal ."},
    },
    "max_new_tokens": 40,
}
SYSTEM = {"role": "system", "content": "act as bolo ."}
sampled: list[tuple[str, str]] = []
scored: list[tuple[str, str]] = []


class StubSampler:
    """Answers "sure", with a generic preprompt "sorry", with a tailored one "no, not legal".

    Prompts with "long" are truncated, those with "empty" get nothing, unless there is no preprompt.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tokenizer = chatml_tokenizer()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        temperature: float,
        seed: str,
        keys: Sequence[int],
        label: str,
    ) -> Samples:
        ids, finished = [], []
        for prompt in prompts:
            text = self.tokenizer.decode(prompt)
            system = text.split("<|im_end|>")[0]
            tailored, generic = "not legal" in system, "system\nbe " in system
            answer = "no, not legal" if tailored else "sorry" if generic else "sure"
            answer = "" if generic and "empty" in text else answer
            sampled.append((seed, text))
            finished.append(not (generic and "long" in text))
            ids.append([*self.tokenizer(answer)["input_ids"], *([2] if finished[-1] else [])])
        return Samples(list(range(len(ids))), ids, [[0.0] * len(row) for row in ids], finished)


class StubScorer:
    """The safety score is that of the answer; prompts with "fine" were safe without any preprompt."""

    SCORES = {"no, not legal": 0.9, "sorry": 0.6, "sure": 0.1, "": 0.2}

    def __init__(self, folder: Path, tokenizer: Any, *, dtype: str) -> None:
        self.tokenizer = tokenizer

    def __call__(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], label: str
    ) -> Tensor:
        pairs = [
            (self.tokenizer.decode(prompt), self.tokenizer.decode(answer))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        scored.extend(pairs)
        scores = [
            0.95 if answer == "sure" and "fine" in prompt else self.SCORES[answer] for prompt, answer in pairs
        ]
        return torch.tensor(scores, dtype=torch.float64)


def rows_of_prompts() -> list[dict[str, Any]]:
    common = {"is_safety": True, "attack": "logic"}
    return [
        {"messages": turn("hello"), "is_safety": False},
        {"messages": turn("steal it ?"), "category": "illicit", **common},
        {"messages": turn("steal a fine one ?"), "category": "illicit", **common},
        {
            "messages": [SYSTEM, *turn("hello", "be kind ."), *turn("mock it ?")],
            "category": "hateful",
            **common,
        },
        {"messages": turn("a long one ?"), "category": "illicit", **common},
        {"messages": turn("an empty one ?"), **common},
    ]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    tokenizer = chatml_tokenizer()
    write(tmp_path / "data" / "prompts.jsonl", rows_of_prompts())
    save_tiny_model(tmp_path / "model", tokenizer, max_position_embeddings=1024)
    save_tiny_reward_model(tmp_path / "safety", tokenizer, max_position_embeddings=1024)
    monkeypatch.setattr(engines, "local_sampler", StubSampler)
    monkeypatch.setattr(stage, "Scorer", StubScorer)
    sampled.clear()
    scored.clear()
    return {name: tmp_path / name for name in ("data", "model", "safety")}


def run(inputs: dict[str, Path], out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return stage.run(DistillationSettings.model_validate_json(json.dumps(CHOSEN | changes)), inputs, out)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_distilled_answers_are_kept_without_the_preprompt(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = run(inputs, tmp_path / "out")
    prompts = rows_of_prompts()
    kept, ungated = (rows(tmp_path / "out" / f"{name}.jsonl") for name in ("dialogues", "ungated"))
    answers = ("no, not legal", "no, not legal", "sorry")
    stolen, fine, mocked = (
        prompt | {"messages": [*prompt["messages"], {"role": "assistant", "content": answer}]}
        for prompt, answer in zip(prompts[1:4], answers, strict=True)
    )
    assert kept == [stolen, mocked]
    assert ungated == [stolen, fine, mocked]
    assert (metrics["prompts"], metrics["ordinary_prompts"], metrics["kept"]) == (5, 1, 2)
    assert metrics["by_category"]["none"] == {
        "prompts": 1,
        "kept": 0,
        "kept_share": 0.0,
        "kept_share_se": None,
    }
    assert metrics["scores"]["tailored"]["prompts"] == 3
    assert metrics["bad_rows"] == 0
    read = read_dialogues([Source(path="dialogues.jsonl", format="messages")], tmp_path / "out")
    assert [one.messages for one in read] == [row["messages"] for row in kept]


def test_scores_are_those_of_answers_to_the_prompt_without_preprompt(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    run(inputs, tmp_path / "out")
    assert len(scored) == 5 + 5 + 3
    for prompt, _ in scored:
        assert re.match(r"<\|im_start\|>system\n(You are a helpful AI assistant|act as bolo \.)<", prompt)
    written = rows(tmp_path / "out" / "scores.jsonl")
    assert [row["scores"] for row in written[:3]] == [
        {"original": 0.1, "generic": 0.6, "tailored": 0.9},
        {"original": 0.95, "generic": 0.6, "tailored": 0.9},
        {"original": 0.1, "generic": 0.6},
    ]
    assert [row["kept"] for row in written] == [True, False, True, False, False]
    assert [row["distilled"] for row in written] == ["tailored", "tailored", "generic", None, None]
    assert written[2]["context"] == "instruction_multi_turn"
    assert {row["attack"] for row in written} == {"logic"}


def test_answers_of_each_kind_have_their_own_seed(inputs: dict[str, Path], tmp_path: Path) -> None:
    run(inputs, tmp_path / "out")
    run(inputs, tmp_path / "round", round="v1", seed=3)
    seeds = {seed for seed, _ in sampled}
    kinds = ("original", "generic", "tailored")
    assert seeds == {f"{start}/distillation/{kind}" for start in ("0", "3/v1") for kind in kinds}


@pytest.mark.parametrize("killed_at", ["tailored", "scores"])
def test_a_killed_run_resumes_with_the_parts_that_are_finished(
    inputs: dict[str, Path], tmp_path: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(inputs, tmp_path / "undisturbed")
    sample = StubSampler.sample

    def killed(self: StubSampler, *given: Any, **named: Any) -> Samples:
        if named["seed"].endswith(killed_at):
            raise KeyboardInterrupt
        return sample(self, *given, **named)

    def killed_scoring(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StubSampler, "sample", killed)
        patched.setattr(stage, "Scorer", killed_scoring)
        run(inputs, tmp_path / "killed")
    sampled.clear()
    run(inputs, tmp_path / "killed")
    again = {seed.rpartition("/")[2] for seed, _ in sampled}
    assert again == ({"tailored"} if killed_at == "tailored" else set())
    for name in (stage.DIALOGUES, stage.UNGATED, stage.SCORES):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_the_batches_change_no_answer(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real models, whose weights are random: few of their answers end."""
    monkeypatch.undo()
    parts = []
    for size in (1, 1000):
        with suppress(DataError):
            run(inputs, tmp_path / str(size), sampling_cache_tokens=size)
        folder = tmp_path / str(size) / "resume"
        names = ("original", "generic", "tailored", "scores")
        parts.append([(folder / f"{name}.jsonl").read_text() for name in names])
    assert parts[0][:3] == parts[1][:3]
    assert len(json.loads(parts[0][0].splitlines()[0])["ids"]) > 0
    assert all(0 < json.loads(line)["score"] < 1 for line in parts[0][3].splitlines())
    assert len(parts[0][3].splitlines()) == 13


def test_without_answer_templates_there_is_no_tailored_answer(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    preprompts = {name: text for name, text in CHOSEN["preprompts"].items() if name != "answer_templates"}
    metrics = run(inputs, tmp_path / "out", preprompts=preprompts)
    assert metrics["scores"]["tailored"] == {"prompts": 0, "score": None, "score_se": None}
    assert metrics["kept"] == 2
    assert {tuple(row["answers"]) for row in rows(tmp_path / "out" / "scores.jsonl")} == {
        ("original", "generic")
    }


def test_the_answer_fits_in_the_context_of_the_safety_model(inputs: dict[str, Path], tmp_path: Path) -> None:
    """It scores prompt, answer and EOS."""
    run(inputs, tmp_path / "out")
    tokenizer = chatml_tokenizer()
    longest = max(len(tokenizer(text)["input_ids"]) for _, text in sampled)
    save_tiny_reward_model(inputs["safety"], tokenizer, max_position_embeddings=longest + 40)
    metrics = run(inputs, tmp_path / "shorter")
    assert metrics["skipped"] == {f"prompt longer than {longest - 1} tokens with its preprompt": 1}


def test_errors(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the gate keeps none of 1 distilled answers"):
        write(inputs["data"] / "fine.jsonl", [rows_of_prompts()[2]])
        run(inputs, tmp_path / "out", prompts=[{"path": "fine.jsonl", "format": "prompts"}])
    write(inputs["data"] / "long.jsonl", rows_of_prompts()[4:])
    with pytest.raises(DataError, match=r"2 of them are truncated, empty or .*raise max_new_tokens"):
        run(inputs, tmp_path / "long", prompts=[{"path": "long.jsonl", "format": "prompts"}])
    other = chatml_tokenizer()
    other.add_tokens(["<more>"])
    save_tiny_reward_model(tmp_path / "other", other)
    sampled.clear()
    with pytest.raises(DataError, match="the reward model's tokenizer differs from the policy's"):
        run(inputs | {"safety": tmp_path / "other"}, tmp_path / "no")
    assert not sampled, "before anything is sampled"
