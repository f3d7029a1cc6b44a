"""Measures of answers against handmade verdicts."""

from __future__ import annotations

import pytest
import torch

from llamita.evaluation.answers import (
    answer_values,
    log_ratios,
    refusal_agreement,
    refusal_values,
    sample_answers,
    score_values,
)
from llamita.evaluation.prompts import EvaluationPrompt, Kind
from llamita.evaluation.responder import SampledAnswer
from llamita.evaluation.values import figures

END = 9  # ends an answer; the tokenizer's EOS need not be the only one


class StubScorer:
    """Scores fixed answers: "good" is helpful, "bomb" harmful, "no" a refusal."""

    def helpfulness(self, question_id: str, answer: str) -> float:
        assert question_id
        return 1.0 if answer == "good" else 0.25

    def safety(self, answer: str) -> str:
        return {"bomb": "harmful", "no": "refusal"}.get(answer, "invalid")

    def is_refusal(self, answer: str) -> bool:
        return answer == "no"


def answered(*rows: tuple[Kind, str]) -> list[tuple[EvaluationPrompt, SampledAnswer]]:
    return [
        (
            EvaluationPrompt(
                kind, f"{kind}-{place}", [{"role": "user", "content": f"q{place}"}], [1, 5, place]
            ),
            SampledAnswer([7] * len(text) + [END] * (text != "hmm"), text, finished=text != "hmm"),
        )
        for place, (kind, text) in enumerate(rows)
    ]


def measured(values: dict) -> dict[str, float | None]:
    """Every answer has its own prompt."""
    return figures(values, range(len(next(iter(values.values())))))


ROWS = answered(
    ("ordinary", "good"),
    ("ordinary", "no"),
    ("ordinary", "no"),
    ("harmful", "bomb"),
    ("harmful", "no"),
    ("harmful", "hmm"),
    ("harmful", "bomb"),
    ("borderline", "good"),
    ("borderline", "no"),
)


def test_rates_with_gold() -> None:
    found = measured(answer_values(ROWS, StubScorer(), false_refusal_answers=500))
    assert found["gold_helpfulness"] == pytest.approx(0.5)
    assert found["violation_rate"] == 0.5
    assert found["invalid_rate"] == 0.25
    assert found["refusal_rate"] == 0.25
    assert found["false_refusal_rate"] == pytest.approx(2 / 3)
    assert found["false_refusal_borderline"] == 0.5
    assert found["truncated_rate"] == pytest.approx(1 / 9)
    assert found["violation_rate_se"] == pytest.approx((0.25 / 3) ** 0.5)


def test_false_refusals_are_counted_on_the_first_prompts() -> None:
    values = answer_values(ROWS, StubScorer(), false_refusal_answers=2)
    assert measured(values)["false_refusal_rate"] == 0.5


def test_without_gold_phrases_detect_refusals_and_gold_measures_are_omitted() -> None:
    rows = answered(
        ("ordinary", "I'm sorry, but I can't help"), ("harmful", "As an AI I won't"), ("harmful", "ok")
    )
    found = measured(answer_values(rows, None, false_refusal_answers=500))
    assert found["false_refusal_rate"] == 1.0
    assert found["refusal_rate"] == 0.5
    assert not {"gold_helpfulness", "violation_rate", "invalid_rate"} & found.keys()


def test_each_reward_model_scores_its_kind_of_prompts() -> None:
    def by_length(prompts: list[list[int]], answers: list[list[int]], label: str) -> torch.Tensor:
        assert all(prompt[:2] == [1, 5] for prompt in prompts)
        assert not any(END in answer for answer in answers)
        return torch.tensor([len(answer) / 10 for answer in answers], dtype=torch.float64)

    found = measured(score_values(ROWS, {"helpfulness": by_length, "safety": by_length}))
    assert found["helpfulness_score"] == pytest.approx((0.4 + 0.2 + 0.2) / 3)
    assert found["safety_score"] == pytest.approx((0.4 + 0.2 + 0.3 + 0.4) / 4)
    assert score_values(ROWS, {}) == {}


def test_the_judge_scores_ordinary_and_harmful_prompts() -> None:
    def by_length(prompts: list[list[int]], answers: list[list[int]], label: str) -> torch.Tensor:
        return torch.tensor([len(answer) / 10 for answer in answers], dtype=torch.float64)

    scores = score_values(ROWS, {"judge": by_length})["judge_score"]
    assert scores == pytest.approx([0.4, 0.2, 0.2, 0.4, 0.2, 0.3, 0.4, None, None])


def test_refusals_of_a_classifier_by_kind() -> None:
    refused = [True, False, True, True, False, False, False, True, False]
    found = measured(refusal_values(ROWS, refused, ("a", "b", "c"), limit=2))
    assert (found["a"], found["b"], found["c"]) == (0.25, 0.5, 0.5)


def test_the_classifier_against_phrases_and_gold() -> None:
    rows = answered(
        *(("harmful", text) for text in ("no", "I cannot help", "good", "bomb")),  # gold knows "no" only
    )
    found = refusal_agreement(rows, [True, True, False, False], StubScorer(), groups=range(4))
    assert (found["gold"]["agreement"], found["phrases"]["agreement"]) == (0.75, 0.75)
    assert (found["gold"]["kappa"], found["gold"]["answers"]) == (0.5, 4)
    found = refusal_agreement(rows, [True, False, False, False], StubScorer(), groups=range(4))
    assert found["gold"]["kappa"] == 1.0
    assert refusal_agreement(rows, [True] * 4, None, groups=range(4))["gold"] is None


def test_answers_to_one_prompt_are_dependent_in_the_error_of_the_agreement() -> None:
    rows = answered(*[("harmful", "I cannot help")] * 6)
    verdicts = [True, True, True, False, False, False]
    found = refusal_agreement(rows, verdicts, StubScorer(), groups=[0, 0, 0, 1, 1, 1])
    assert found["phrases"]["agreement_se"] == found["gold"]["agreement_se"] == pytest.approx(0.5)


def test_kl_is_the_mean_summed_log_ratio() -> None:
    ratios = log_ratios([-1.0, -2.0, None, -6.0], [-2.0, -2.5, None, -6.5])
    found = measured({"kl_to_start": ratios})
    assert found["kl_to_start"] == pytest.approx(2 / 3)
    assert found["kl_to_start_se"] == pytest.approx(((1 / 9 + 1 / 36 + 1 / 36) / 2 / 3) ** 0.5)


def test_samples_show_the_same_prompts_for_all_versions() -> None:
    later = answered(*[(prompt.kind, "good") for prompt, _ in ROWS])
    samples = sample_answers({"sft": ROWS, "v2": later}, StubScorer(), {"ordinary": 2, "harmful": 9})
    assert [sample["prompt"] for sample in samples] == ["q0", "q1", "q3", "q4", "q5", "q6"]
    assert samples[0]["answers"]["sft"] == {"text": "good", "helpfulness": 1.0, "verdict": None}
    assert samples[1]["answers"]["sft"] == {"text": "no", "helpfulness": 0.25, "verdict": "refusal"}
    assert samples[2]["answers"]["sft"]["verdict"] == "harmful"
    assert samples[2]["answers"]["v2"] == {"text": "good", "helpfulness": None, "verdict": "invalid"}
