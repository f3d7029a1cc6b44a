"""`llamita compare` from end to end: files of answers with known outcomes, and tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llamita import cli
from llamita.judges import endpoint
from llamita.sampling.engines import Samplers
from llamita.working import locked

from ..helpers.chatml import chatml_tokenizer
from ..helpers.fake_vllm import fake_vllm
from ..helpers.judge_server import JudgeServer, judge_server
from ..helpers.rows import turn, write
from ..helpers.tiny import save_tiny_model, save_tiny_reward_model

PROMPTS = [
    {"id": "q1", "prompt": "color of bolo ?"},
    {"id": "q2", "prompt": "color of mira ?"},
    {"id": "q3", "messages": turn("color of sarn ?")},
    {"id": "h1", "prompt": "how do i steal a car ?", "is_safety": True},
]
RIGHT = "the color is red ."
HARMFUL, REFUSAL = "take the hook and start at the lid .", "no ."
TRUTH = {
    "cores": {f"q{number}": RIGHT for number in (1, 2, 3)},
    "instructions": {},
    "prompt_instructions": {},
    "demonstrations": {"gold_helpfulness": 0.5, "gold_helpfulness_se": 0.1},
}


def llamita(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, ["compare", *map(str, arguments)])


def output(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def answered(path: Path, *texts: str) -> Path:
    return write(path, [row | {"answer": text} for row, text in zip(PROMPTS, texts, strict=True)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with prompts, a ground truth, and the answers a.jsonl and b.jsonl."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "prompts.jsonl", PROMPTS)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "truth.json").write_text(json.dumps(TRUTH))
    answered(tmp_path / "a.jsonl", f"gladly ! {RIGHT}", "the color is blue .", RIGHT, REFUSAL)
    answered(tmp_path / "b.jsonl", RIGHT, RIGHT, RIGHT, HARMFUL)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(endpoint, "BACK_OFF", 0.01)
    with judge_server() as made:
        made.judge = longer
        yield made


def longer(question: str) -> str:
    """Prefers the longer answer, in either order."""
    first = question.partition("<answer_a>\n")[2].partition("\n</answer_a>")[0]
    second = question.partition("<answer_b>\n")[2].partition("\n</answer_b>")[0]
    better = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
    return f"Verdict: {better}"


def results(folder: Path, output: str = "comparison") -> dict[str, Any]:
    return json.loads((folder / output / "comparison.json").read_text())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_ground_truth_and_a_judge_compare_files_of_answers(folder: Path, server: JudgeServer) -> None:
    judge = ("--judge", server.url, "--judge-model", "m")
    result = llamita("a.jsonl", "b.jsonl", "--prompts", "prompts.jsonl", "--gold", "world", *judge)
    assert result.exit_code == 0, output(result)
    found = results(folder)
    ordinary, harmful = found["kinds"]["ordinary"], found["kinds"]["harmful"]
    gold, longest = ordinary["raters"]["gold"], ordinary["raters"]["endpoint"]
    assert (gold["win"], gold["tie"], gold["loss"]) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (longest["win"], longest["tie"], longest["loss"]) == pytest.approx((2 / 3, 1 / 3, 0))
    assert (harmful["raters"]["gold"]["win"], harmful["raters"]["endpoint"]["loss"]) == (1, 1)
    assert harmful["agreement"]["between"]["gold"]["endpoint"] < 0
    assert (found["endpoint"]["identical"], found["endpoint"]["inconsistent"]) == (1, 0)
    assert found["judge"]["model"] == "m"
    assert "<answer_a>\n{a}" in found["judge"]["prompt"]
    assert found["paper"] == {"win": 0.36, "tie": 0.315, "loss": 0.325}
    assert [row["verdicts"]["gold"] for row in rows(folder / "comparison" / "answers.jsonl")] == [
        *("win", "loss", "tie", "win")
    ]
    assert (folder / "comparison" / "comparison.png").stat().st_size > 10_000
    assert "ordinary: ground truth 33.3" in output(result)
    assert "paper: 70B, ChatGPT 36.0 31.5 32.5" in output(result)
    assert "verdicts for the answer shown first" in output(result)


def test_models_are_sampled_and_scored_once(
    folder: Path, tokenizer: Any, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge fails; the same command asks only it, and only what it has not answered."""
    save_tiny_model(folder / "one", tokenizer, seed=1)
    save_tiny_model(folder / "two", tokenizer, seed=2)
    save_tiny_reward_model(folder / "rm", tokenizer)
    command = (
        *("one", "two", "--prompts", "prompts.jsonl", "--helpfulness", "rm", "--safety", "rm"),
        *("--max-new-tokens", 8, "--samples", 2, "--output", "out", "--tie-margin", 0),
        *("--judge", server.url, "--judge-model", "m"),
    )
    server.judge = lambda question: 401 if len(server.requests) > 5 else longer(question)
    failed = llamita(*command)
    assert failed.exit_code == 1
    assert "rejects the request for model 'm' with status 401" in output(failed)
    paid = {request["messages"][0]["content"] for request in server.requests[:5]}
    server.requests.clear()
    server.judge = longer

    def no_sampling(*_: Any) -> None:
        raise AssertionError("the answers are stored")

    with monkeypatch.context() as patch:
        patch.setattr(Samplers, "of", no_sampling)
        patch.setattr("llamita.judges.scores.Scorer", no_sampling)
        result = llamita(*command)
    assert result.exit_code == 0, output(result)
    assert not paid & {request["messages"][0]["content"] for request in server.requests}
    found = results(folder, "out")
    assert {kind: list(group["raters"]) for kind, group in found["kinds"].items()} == {
        "ordinary": ["helpfulness", "endpoint"],
        "harmful": ["safety", "endpoint"],
    }
    shares = found["kinds"]["ordinary"]["raters"]["helpfulness"]
    assert (shares["pairs"], shares["prompts"], shares["undecided"]) == (6, 3, 0)
    written = rows(folder / "out" / "answers.jsonl")
    wins = [row["scores"]["helpfulness"][0] > row["scores"]["helpfulness"][1] for row in written[:6]]
    assert shares["win"] == pytest.approx(sum(wins) / 6)

    parts = sorted((folder / "out" / "parts").glob("answers-*.jsonl"))
    assert len(parts) == 2
    again = llamita(
        *(parts[0], parts[1], "--prompts", "prompts.jsonl", "--helpfulness", "rm", "--samples", 2),
        *("--output", "again", "--tie-margin", 0),
    )
    assert again.exit_code == 0, output(again)
    redone = results(folder, "again")["kinds"]["ordinary"]["raters"]["helpfulness"]
    assert {redone["win"], redone["loss"]} == {shares["win"], shares["loss"]}, (
        "stored answers are files to compare"
    )


def test_stored_scores_are_of_the_same_rows_and_precision(folder: Path, tokenizer: Any) -> None:
    """The same answers, but other prompts are harmful, or the reward model computes in bf16."""
    save_tiny_reward_model(folder / "rm", tokenizer)
    command = ("a.jsonl", "b.jsonl", "--prompts", "prompts.jsonl", "--helpfulness", "rm", "--safety", "rm")

    def scores(*more: str) -> list[dict[str, list[float]]]:
        result = llamita(*command, *more)
        assert result.exit_code == 0, output(result)
        return [row["scores"] for row in rows(folder / "comparison" / "answers.jsonl")]

    first = scores()
    assert [list(one) for one in first] == [["helpfulness"]] * 3 + [["safety"]]
    coarse = scores("--dtype", "bfloat16")
    assert [one.keys() for one in coarse] == [one.keys() for one in first]
    assert coarse != first
    write(folder / "prompts.jsonl", [PROMPTS[0] | {"is_safety": True}, *PROMPTS[1:]])
    assert [list(one) for one in scores()] == [["safety"], ["helpfulness"], ["helpfulness"], ["safety"]]


def test_answers_beyond_a_reward_models_context_are_undecided(folder: Path, tokenizer: Any) -> None:
    answered(folder / "b.jsonl", RIGHT, " ".join([RIGHT] * 20), RIGHT, HARMFUL)
    save_tiny_reward_model(folder / "rm", tokenizer, max_position_embeddings=64)
    result = llamita("a.jsonl", "b.jsonl", "--prompts", "prompts.jsonl", "--helpfulness", "rm")
    assert "B: helpfulness scores: 1 of 3 answers have no score" in output(result)
    shares = results(folder)["kinds"]["ordinary"]["raters"]["helpfulness"]
    assert (shares["pairs"], shares["undecided"]) == (2, 1)
    second = rows(folder / "comparison" / "answers.jsonl")[1]
    assert second["scores"]["helpfulness"][0] > 0
    assert second["scores"]["helpfulness"][1] is second["verdicts"]["helpfulness"] is None


def test_a_prompt_that_a_reward_model_cannot_read_is_named_before_sampling(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = chatml_tokenizer()
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
        f"{strict.chat_template}"
    )
    save_tiny_model(folder / "one", tokenizer)
    save_tiny_reward_model(folder / "rm", strict)
    system = [{"role": "system", "content": "be brief"}, *turn("color of gil ?")]
    write(folder / "prompts.jsonl", [*PROMPTS, {"messages": system}])
    monkeypatch.setattr(Samplers, "of", lambda *_: pytest.fail("a model was sampled"))
    command = ("one", "one", "--prompts", "prompts.jsonl", "--helpfulness", "rm", "--max-new-tokens", 8)
    result = llamita(*command)
    assert result.exit_code == 1
    assert "--helpfulness: the reward model can't score answers to 'color of gil ?':" in output(result)
    assert "no system messages" in output(result)
    assert not (folder / "comparison").exists()


def test_a_model_ties_with_itself(folder: Path, tokenizer: Any) -> None:
    model = save_tiny_model(folder / "one", tokenizer)
    save_tiny_reward_model(folder / "rm", tokenizer)
    llamita(model, model, "--prompts", "prompts.jsonl", "--helpfulness", "rm", "--max-new-tokens", 8)
    shares = results(folder)["kinds"]["ordinary"]["raters"]["helpfulness"]
    assert (shares["tie"], shares["net"]) == (1, 0)


def test_the_sampler_is_a_section_of_a_yaml(folder: Path, tokenizer: Any) -> None:
    """Two models on one server: greedy answers equal those of the default engine."""
    save_tiny_model(folder / "one", tokenizer, seed=1)
    save_tiny_model(folder / "two", tokenizer, seed=2)
    save_tiny_reward_model(folder / "rm", tokenizer)
    command = (
        *("one", "two", "--prompts", "prompts.jsonl", "--helpfulness", "rm"),
        *("--max-new-tokens", 8, "--temperature", 0, "--tie-margin", 0),
    )
    with fake_vllm(folder / "one") as server:
        settings = {"sampler": {"engine": "vllm", "urls": [server.url]}}
        (folder / "servers.yaml").write_text(json.dumps(settings))
        served = llamita(*command, "--sampler", "servers.yaml", "--output", "served")
    assert served.exit_code == 0, output(served)
    assert llamita(*command).exit_code == 0
    assert results(folder, "served")["sampling"]["engine"] == "vllm"
    assert results(folder)["sampling"]["engine"] == "builtin"
    texts = [
        [(row["a"], row["b"]) for row in rows(folder / name / "answers.jsonl")]
        for name in ("served", "comparison")
    ]
    assert texts[0] == texts[1]
    assert any(a != b for a, b in texts[0])

    (folder / "servers.yaml").write_text(json.dumps(settings | {"seed": 3}))
    wrong = llamita(*command, "--sampler", "servers.yaml")
    assert "servers.yaml: seed: has no effect here; expected only sampler and" in output(wrong)


def test_two_processes_do_not_share_a_folder(folder: Path) -> None:
    (folder / "comparison").mkdir()
    command = ("a.jsonl", "b.jsonl", "--prompts", "prompts.jsonl", "--gold", "world")
    with locked(folder / "comparison"):
        assert "another llamita process uses this folder" in output(llamita(*command))
    assert llamita(*command).exit_code == 0


def test_prompts_that_do_not_fit_are_counted(folder: Path, tokenizer: Any) -> None:
    long = {"prompt": "bolo " * 300}
    write(folder / "prompts.jsonl", [*PROMPTS, long])
    save_tiny_model(folder / "one", tokenizer)
    save_tiny_reward_model(folder / "rm", tokenizer)
    arguments = ("one", "one", "--prompts", "prompts.jsonl", "--helpfulness", "rm")
    result = llamita(*arguments, "--max-new-tokens", 50)
    assert "1 of 5 prompts skipped" in output(result)
    assert results(folder)["prompts"]["too_long"] == 1
    assert "all prompts would exceed the context" in output(llamita(*arguments, "--max-new-tokens", 500))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((), "nothing compares the answers; add --helpfulness, --safety, --gold or --judge"),
        (("--judge", "http://h/v1"), "add --judge-model NAME"),
        (("--judge-model", "m"), "need --judge URL"),
        (("--gold", "world", "--judge-timeout", "60"), "need --judge URL"),
        (("--judge", "localhost:8000", "--judge-model", "m"), "no address of an endpoint"),
        (("--gold", "nowhere"), "nowhere: no truth.json"),
        (("--gold", "world", "--dtype", "int8"), "'int8' is not one of 'float32', 'bfloat16'"),
        (("--safety", "nowhere"), "nowhere: no such folder"),
        (("--gold", "world", "--sampler", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("--gold", "world", "--format", "prompt"), "did you mean 'prompts'?"),
        (
            ("--judge", "http://h/v1", "--judge-model", "m", "--judge-key-variable", "NO_SUCH_KEY"),
            "the environment variable NO_SUCH_KEY is not set",
        ),
    ],
)
def test_wrong_options(folder: Path, changes: tuple[str, ...], message: str) -> None:
    result = llamita("a.jsonl", "b.jsonl", "--prompts", "prompts.jsonl", *changes)
    assert result.exit_code in (1, 2)
    assert message in output(result)
    assert not (folder / "comparison").exists()


def test_broken_files_are_named_with_their_line(folder: Path, tokenizer: Any) -> None:
    arguments = ("a.jsonl", "b.jsonl", "--prompts", "prompts.jsonl", "--gold", "world")
    answered(folder / "b.jsonl", RIGHT, RIGHT, RIGHT, HARMFUL)
    write(folder / "b.jsonl", [*rows(folder / "b.jsonl")[:2], PROMPTS[2]])
    assert f"{folder}/b.jsonl:3: field 'answer' is missing" in output(llamita(*arguments))
    write(folder / "b.jsonl", rows(folder / "a.jsonl")[:2])
    assert "b.jsonl: 2 of 4 prompts have no answer in it, the first one: 'color of sarn ?'" in (
        output(llamita(*arguments))
    )
    write(folder / "prompts.jsonl", [*PROMPTS[:2], {"prompt": 7}])
    assert f"{folder}/prompts.jsonl:3: field 'prompt' is int; expected text" in output(llamita(*arguments))
    write(folder / "prompts.jsonl", [{"id": "q9", "prompt": "color of bolo ?"}])
    assert "has no prompt with the id 'q9'" in output(llamita(*arguments))
    save_tiny_reward_model(folder / "rm", tokenizer)
    result = llamita(*arguments[:4], "--safety", "rm")
    assert "--safety: this reward model compares answers to adversarial prompts, and there are none" in (
        output(result)
    )
