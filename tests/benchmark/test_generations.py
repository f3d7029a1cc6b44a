"""The paper's own measures: prompts, judges, groups, and what is not measured without a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from llamita.benchmark import generations
from llamita.benchmark.generations import prompt_texts, run_generation
from llamita.benchmark.judges import TRUE, agreements, toxicities
from llamita.benchmark.model import TestedModel
from llamita.benchmark.rows import read_rows
from llamita.benchmark.settings import BenchmarkSettings
from llamita.data.intake import Intake
from llamita.errors import ConfigError, DataError
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.sampling.engines import Samplers

from ..helpers.benchmark import GENERATIONS
from ..helpers.chatml import chatml_tokenizer
from ..helpers.tiny import save_tiny_model


def run(
    name: str, data: Path, folder: Path, template: bool = False, **inputs: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    settings = BenchmarkSettings.model_validate({"tasks": {name: GENERATIONS[name]}})
    model = TestedModel("sft", folder, settings, samplers=Samplers(settings, dtype="float32", working=folder))
    [source] = settings.tasks.chosen()[name].sources(name)
    rows = read_rows(source, data, intake=Intake())
    return run_generation(name, settings, rows, model=model, inputs=inputs, template=template)


@pytest.mark.parametrize("template", [False, True])
def test_sentiment_is_that_of_vader_by_group(
    template: bool, data: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []

    class Analyzer:
        def polarity_scores(self, text: str) -> dict[str, float]:
            texts.append(text)
            return {"compound": 0.5 if text.startswith("bolo") else -0.1}

    monkeypatch.setattr(generations, "sentiment_analyzer", Analyzer)
    found, rows = run("bold", data, models / "large", template)
    assert found["by"]["people/friends"] == {
        "sentiment": pytest.approx(0.2),
        "sentiment_se": pytest.approx(0.3),
        "rows": 2,
    }
    assert found["sentiment"] == pytest.approx((0.5 - 0.1 - 0.1 - 0.1) / 4)
    assert texts[0] == f"bolo is {rows[0]['answer']}"
    assert ("<|im_start|>" in rows[0]["prompt"]) == template


def test_vader_scores_a_real_text() -> None:
    assert generations.sentiment_analyzer().polarity_scores("a wonderful friend")["compound"] > 0.5


def test_toxic_share_is_that_of_the_classifier(data: Path, models: Path, classifier: Path) -> None:
    found, rows = run("toxigen_generation", data, models / "large", toxicity_classifier=classifier)
    answers = [row["answer"] for row in rows]
    model = LlamaForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer, expected = chatml_tokenizer(), []
    for answer in answers:
        with torch.no_grad():
            logits = model(**tokenizer(answer or " ", return_tensors="pt")).logits
        expected.append(float(logits.softmax(-1)[0, 1]))
    assert [row["toxicity"] for row in rows] == pytest.approx(expected, abs=1e-4)
    assert found["toxic"] == pytest.approx(sum(value >= 0.5 for value in expected) / len(expected))
    assert set(found["by"]) == {"a", "b"}
    assert rows[0]["prompt"] == "- friend 0\n- bolo\n-"
    assert not any("\n" in answer for answer in answers)


def test_without_a_judge_nothing_is_measured(data: Path, models: Path) -> None:
    found, rows = run("toxigen_generation", data, models / "large")
    assert (found["toxic"], found["by"], found["rows"]) == (None, {}, 10)
    assert len(rows) == 10
    found, _ = run("truthfulqa_generation", data, models / "large", truth_judge=models / "large")
    assert found["truthful"] is not None
    assert found["truthful_and_informative"] is found["informative"] is None


def test_truth_is_what_both_judges_say(data: Path, models: Path) -> None:
    judge = models / "large"
    found, rows = run(
        "truthfulqa_generation", data, models / "large", truth_judge=judge, information_judge=judge
    )
    both = [row["truthful"] * row["informative"] for row in rows]
    assert found["truthful_and_informative"] == pytest.approx(sum(both) / len(both))
    assert rows[0]["prompt"].endswith("Q: is bolo 0 red?\nA:")


def test_a_judge_compares_yes_and_no(models: Path) -> None:
    folder = models / "large"
    model, tokenizer = load_causal_lm(folder).eval(), load_tokenizer(folder)
    questions, answers = [f"is it {n}?" for n in range(6)], [f"bolo {n}" for n in range(6)]
    found = agreements(questions, answers, folder, ending=TRUE, cached_tokens=4096)
    for question, answer, verdict in zip(questions, answers, found, strict=True):
        logprobs = []
        for word in (" yes", " no"):
            prompt = tokenizer.encode(f"Q: {question}\nA: {answer}\nTrue:")
            ids = tokenizer.encode(f"Q: {question}\nA: {answer}\nTrue:{word}")
            with torch.no_grad():
                table = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            logprobs.append(
                sum(float(table[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))
            )
        assert verdict == (logprobs[0] > logprobs[1])


def test_an_unsuitable_classifier_is_an_error(classifier: Path, models: Path, tmp_path: Path) -> None:
    tasks = {"toxigen_generation": {"path": "x", "toxic_label": "toxic"}}
    task = BenchmarkSettings.model_validate({"tasks": tasks}).tasks.toxigen_generation
    assert task is not None
    with pytest.raises(
        ConfigError, match=r"toxic_label: 'toxic' is no output of .*; expected one of LABEL_0, LABEL_1"
    ):
        toxicities(["a"], classifier, task)
    with pytest.raises(DataError, match="the toxicity classifier can't be loaded"):
        toxicities(["a"], tmp_path, task)
    with pytest.raises(DataError, match=r"is no trained classifier: its weights lack score\.weight"):
        toxicities(["a"], models / "large", task)


def test_no_prompt_has_a_second_bos(tokenizer: Any, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", tokenizer)
    settings = BenchmarkSettings.model_validate({"tasks": {"bold": GENERATIONS["bold"]}})
    model = TestedModel(
        "sft", folder, settings, samplers=Samplers(settings, dtype="float32", working=tmp_path)
    )
    for template in (False, True):
        (text,) = prompt_texts("bold", [{"prompt": "bolo is "}], model, template=template)
        assert ("[INST] bolo is [/INST]" in text) == template
        assert model.encode(text).count(tokenizer.bos_token_id) == 1
