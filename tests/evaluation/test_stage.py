"""The whole stage on a tiny world with tiny random models: all keys, reproducible numbers, nulls."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llamita.errors import DataError
from llamita.evaluation import answering, ghost_attention, responder, stage
from llamita.evaluation.attention import measure_attention
from llamita.evaluation.responder import Responder
from llamita.evaluation.stage import run
from llamita.measures import MEASURES, RETENTION_TURNS, empty_evaluation
from llamita.model.checkpoint import load_causal_lm
from llamita.model.saving import save_model
from llamita.model.scorer import Scorer

from ..helpers.rows import write
from ..helpers.tiny_evaluation import settings


@pytest.fixture(scope="module")
def evaluation(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("evaluate")
    metrics = run(settings(), inputs, out)
    assert json.loads((out / "evaluation.json").read_text()) == metrics
    for name in ("sft", "v1/rejection", "v2/ppo"):
        assert (out / "versions" / name / "answers.jsonl").is_file()
    started = {name: counts["started"] for name, counts in metrics["gatt_dialogues"].items()}
    assert started == {"with": 3, "without": 3, "unseen": 2}
    return metrics


def test_everything_measurable_is_measured(evaluation: dict[str, Any]) -> None:
    assert evaluation.keys() == empty_evaluation().keys()
    assert evaluation["demonstrations"]["gold_helpfulness"] > 0
    for name in ("sft", "v1/rejection", "v2/ppo"):
        missing = {measure for measure in MEASURES if evaluation["versions"][name][measure] is None}
        unmeasured = {"helpfulness_score", "judge_score", *answering.CLASSIFIER_MEASURES}
        assert missing == unmeasured | ({"kl_to_start"} if name != "v2/ppo" else set())
    for group in ("gatt_retention", "gatt_retention_explicit"):
        for series in ("with", "without", "unseen"):
            assert None not in [evaluation[group][series][str(turn)] for turn in RETENTION_TURNS]
    for attention in evaluation["gatt_attention"].values():
        assert None not in [attention["by_turn"][str(turn)] for turn in RETENTION_TURNS]
        assert len(attention["map"]) == 48
        assert 0 < attention["instruction"][0] < attention["instruction"][1] < 1
    assert evaluation["prompts"]["harmful"] == {"read": 20, "too_long": 0, "skipped": {}}
    assert {sample["kind"] for sample in evaluation["samples"]} == {"ordinary", "harmful", "borderline"}
    assert evaluation["samples"][0]["answers"].keys() == {"sft", "v1/rejection", "v2/ppo"}


def test_kl(evaluation: dict[str, Any]) -> None:
    versions = evaluation["versions"]
    assert versions["sft"]["kl_to_sft"] == 0.0
    assert versions["v1/rejection"]["kl_to_sft"] > 0.1
    assert versions["v2/ppo"]["kl_to_sft"] > 0.1
    assert versions["v2/ppo"]["kl_to_start"] not in (0.0, versions["v2/ppo"]["kl_to_sft"])
    assert versions["v1/rejection"]["kl_to_start"] is None


def test_versions_are_compared_prompt_by_prompt(evaluation: dict[str, Any]) -> None:
    versions, apart = evaluation["versions"], evaluation["differences"]
    assert {name: list(others) for name, others in apart.items()} == {
        "v1/rejection": ["sft"],
        "v2/ppo": ["v1/rejection", "sft"],
    }
    for name, other in (("v1/rejection", "sft"), ("v2/ppo", "v1/rejection"), ("v2/ppo", "sft")):
        for measure in ("kl_to_sft", "safety_score", "answer_tokens"):
            expected = versions[name][measure] - versions[other][measure]
            assert apart[name][other][measure] == pytest.approx(expected)
            assert apart[name][other][f"{measure}_se"] is not None
    assert apart["v1/rejection"]["sft"]["kl_to_sft_se"] == pytest.approx(
        versions["v1/rejection"]["kl_to_sft_se"]
    )


def test_a_version_with_another_tokenizer_is_an_error(
    inputs: dict[str, Path], tmp_path: Path, tokenizer: Any
) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["another"])
    model = load_causal_lm(inputs["sft"])
    model.resize_token_embeddings(len(other))
    save_model(model, other, tmp_path / "other")
    for name in ("versions.other", "ablations.other", "sft_without_gatt"):
        version = name.removeprefix("versions.").removeprefix("ablations.")
        match = rf"the tokenizer of version '{version}' differs from that of .*sft"
        with pytest.raises(DataError, match=match):
            run(settings(), inputs | {name: tmp_path / "other"}, tmp_path / "out")


def test_values_that_are_not_finite_are_reported_and_counted(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = answering.log_ratios

    def broken(logprobs: Any, reference: Any) -> Any:
        ratios = list(whole(logprobs, reference))
        return [math.nan, -math.inf, *ratios[2:]] if ratios[2] else ratios

    monkeypatch.setattr(answering, "log_ratios", broken)
    found = run(settings(retention=None), inputs, tmp_path)
    assert "v1/rejection: kl_to_sft is null: 2 of its values are NaN or infinite" in capsys.readouterr().out
    assert found["not_finite"]["v1/rejection"] == {"kl_to_sft": 2}
    assert found["versions"]["v1/rejection"]["kl_to_sft"] is None
    assert found["differences"]["v1/rejection"]["sft"]["kl_to_sft"] is None
    assert found["versions"]["v1/rejection"]["answer_tokens"] > 0


def test_dialogues_that_exceed_the_context_are_counted_by_turn_and_reported(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = Responder.answer_dialogues

    def shorter(self: Responder, questions: Any, name: str) -> Any:
        first, *others = whole(self, questions, name)
        return [first[:3], *others]

    monkeypatch.setattr(Responder, "answer_dialogues", shorter)
    retention = {"trained": "test/gatt.jsonl", "dialogues": 3, "turns": 4}
    few = {name: inputs[name] for name in ("data", "sft")}
    counts = run(settings(retention=retention), few, tmp_path)["gatt_dialogues"]["with"]
    assert counts["reached"] == {"1": 3, "2": 3, "4": 2}
    assert counts["outgrown"] == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "warning: retention with: 1 of 3 dialogues exceeded the context length" in printed
    assert "turn 2: 3, turn 4: 2" in printed


def test_the_same_model_has_equal_retention_with_and_without(evaluation: dict[str, Any]) -> None:
    """Instructions, questions and draws are the same in both series."""
    assert evaluation["gatt_retention"]["with"] == evaluation["gatt_retention"]["without"]
    apart = evaluation["gatt_retention_difference"]
    assert [apart[f"{turn}{se}"] for turn in RETENTION_TURNS for se in ("", "_se")] == [0.0] * 12


def test_same_seed_same_numbers(inputs: dict[str, Path], evaluation: dict[str, Any], tmp_path: Path) -> None:
    for name in ("again", "other"):
        (tmp_path / name).mkdir()
    assert run(settings(), inputs, tmp_path / "again") == evaluation
    other = run(settings(seed=1), inputs, tmp_path / "other")
    assert other["samples"] != evaluation["samples"]


def test_a_resumed_evaluation_reuses_stored_answers(
    inputs: dict[str, Path], evaluation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[str] = []
    answer, answer_dialogues = Responder.answer, Responder.answer_dialogues

    def recording_answer(self: Responder, prompts: Any, name: str, *how: Any, **more: Any) -> Any:
        sampled.append(name)
        return answer(self, prompts, name, *how, **more)

    def recording_answer_dialogues(self: Responder, questions: Any, name: str) -> Any:
        sampled.append(name)
        return answer_dialogues(self, questions, name)

    monkeypatch.setattr(Responder, "answer", recording_answer)
    monkeypatch.setattr(Responder, "answer_dialogues", recording_answer_dialogues)
    for module, part, calls in (
        (answering, "log_ratios", 2),
        (ghost_attention, "measure_attention", 2),
    ):  # in the second version, in the second series
        left, whole = calls, getattr(module, part)

        def killed(*arguments: Any, whole: Any = whole) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return whole(*arguments)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, part, killed)
            run(settings(), inputs, tmp_path)
    series = ["dialogues", "direct questions"]
    v1, v2 = ["test", "dialogues"], ["test", "dialogues"]
    assert sampled == ["test", "test", *v1, *v2, *series, *series]
    assert run(settings(), inputs, tmp_path) == evaluation
    assert sampled.count("test") == 4, "sft, v1 twice, v2"
    assert sampled.count("dialogues") == 6, "v1, v2, with, without twice, unseen"
    texts = (tmp_path / "retention" / "with" / "dialogues.jsonl").read_text().splitlines()
    assert len(texts) == 3
    assert json.loads(texts[0])["text"]


def test_attention_of_both_models_is_measured_on_the_same_dialogues(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []

    def measure(model: Any, dialogues: Any) -> dict[str, Any]:
        read.append(dialogues)
        return measure_attention(model, dialogues)

    monkeypatch.setattr(ghost_attention, "measure_attention", measure)
    another = inputs["versions.v1/rejection"]
    run(settings(), inputs | {"sft_without_gatt": another}, tmp_path)
    stored = [(tmp_path / "retention" / name / "dialogues.jsonl").read_text() for name in ("with", "without")]
    assert stored[0] != stored[1]
    assert read[0] == read[1]


def test_half_precision_reaches_every_model(
    inputs: dict[str, Path], evaluation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def load(folder: Path, dtype: str) -> Any:
        seen.append(dtype)
        return load_causal_lm(folder, dtype)

    def scorer(folder: Path, tokenizer: Any, *, dtype: str, offloaded: bool) -> Scorer:
        seen.append(dtype)
        return Scorer(folder, tokenizer, dtype=dtype, offloaded=offloaded)

    monkeypatch.setattr(responder, "load_causal_lm", load)
    monkeypatch.setattr(stage, "Scorer", scorer)
    found = run(settings(dtype="bfloat16"), inputs, tmp_path)["versions"]
    assert seen == ["bfloat16"] * 6  # sft, safety, v1, v2, v2's start; without
    for name, measure in (("v1/rejection", "kl_to_sft"), ("sft", "safety_score")):
        exact = evaluation["versions"][name][measure]
        assert found[name][measure] != exact
        assert found[name][measure] == pytest.approx(exact, rel=0.3)
    assert found["sft"]["kl_to_sft"] == 0.0


def test_without_optional_inputs_and_gold(inputs: dict[str, Path], tmp_path: Path) -> None:
    few = {name: inputs[name] for name in ("data", "sft", "versions.v2/ppo")}
    found = run(settings(gold=False, retention=None), few, tmp_path)
    assert found["demonstrations"]["gold_helpfulness"] is None
    assert found["versions"]["v2/ppo"]["gold_helpfulness"] is None
    assert found["versions"]["v2/ppo"]["violation_rate"] is None
    assert found["versions"]["v2/ppo"]["safety_score"] is None
    assert found["versions"]["v2/ppo"]["kl_to_sft"] > 0
    assert found["versions"]["v2/ppo"]["false_refusal_rate"] == 0.0
    assert found["gatt_retention"]["with"]["20"] is None


def test_prompts_too_long_are_counted(inputs: dict[str, Path], tmp_path: Path) -> None:
    long = "so " * 5000
    rows = [{"messages": [{"role": "user", "content": text}]} for text in ("hello !", long, long)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = {"ordinary": [{"path": str(tmp_path / "prompts.jsonl"), "format": "prompts"}]}
    found = run(settings(gold=False, retention=None, prompts=prompts), inputs, tmp_path)
    assert found["prompts"]["ordinary"] == {"read": 2, "too_long": 1, "skipped": {"repeated prompt": 1}}
    assert found["versions"]["sft"]["answer_tokens"] <= 6
    assert found["versions"]["sft"]["violation_rate"] is None


def test_the_seed_draws_the_instructions_that_a_source_adds(inputs: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"hello {number} !"}]} for number in range(12)]
    write(tmp_path / "prompts.jsonl", rows)
    source = {"path": str(tmp_path / "prompts.jsonl"), "format": "prompts", "instruction_share": 0.5}
    few = {name: inputs[name] for name in ("data", "sft")}

    def contexts(seed: int) -> dict[str, int]:
        changed = settings(seed=seed, gold=False, retention=None, prompts={"ordinary": [source]})
        found = run(changed, few, tmp_path / f"out{seed}")
        return {name: group["prompts"] for name, group in found["breakdown"]["sft"]["context"].items()}

    (tmp_path / "out0").mkdir()
    (tmp_path / "out1").mkdir()
    assert contexts(0) != contexts(1)


def test_gold_needs_ids(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"messages": [{"role": "user", "content": "hello !"}]}\n')
    prompts = {"ordinary": [{"path": str(tmp_path / "prompts.jsonl"), "format": "prompts"}]}
    with pytest.raises(DataError, match="no id"):
        run(settings(prompts=prompts), inputs, tmp_path)


def test_retention_without_gold_uses_the_checks_of_the_rows(inputs: dict[str, Path], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"t{number}", "instruction": "x", "check": {"kind": kind, "value": ""}, "questions": ["q"] * 4}
        for number, kind in enumerate(("no_commas", "lower_case", "lower_case"))
    ]
    rows.insert(1, {"id": "broken"})
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    retention = {"trained": "test.jsonl", "turns": 4, "dialogues": 3}
    few = {name: inputs[name] for name in ("data", "sft", "sft_without_gatt")} | {"gatt": tmp_path}
    found = run(settings(gold=False, retention=retention, max_bad_rows=1), few, tmp_path)
    assert found["rows"]["bad_rows"] == 1, "counted once, though two models read the test"
    assert found["versions"].keys() == {"sft"}
    assert found["versions"]["sft"]["answer_tokens"] > 0
    rates = found["gatt_retention"]["with"]
    assert all(rates[turn] is not None for turn in ("1", "2", "4"))
    assert rates["6"] is None
    assert found["gatt_retention"]["without"] == rates
    assert found["gatt_retention"]["unseen"]["1"] is None
    reached = dict.fromkeys(("1", "2", "4"), 3)
    asked = dict.fromkeys(reached, 0)
    counts = {"started": 3, "outgrown": 0, "reached": reached, "asked": asked}
    assert found["gatt_dialogues"]["with"] == counts


def test_retention_without_gold_and_checks(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no `check`, which gold: false requires"):
        run(settings(gold=False), inputs, tmp_path)
    assert not (tmp_path / "versions").exists(), "before anything is sampled"
