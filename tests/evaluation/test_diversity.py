"""Self-BLEU by hand and against sacrebleu's corpus of references; prompts and temperatures of the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llamita.evaluation import settings as settings_module
from llamita.evaluation.diversity import self_bleu
from llamita.evaluation.settings import DiversitySettings
from llamita.evaluation.stage import run

from ..helpers.rows import turn, write
from ..helpers.tiny_evaluation import settings

FACTS = {"path": "diversity.jsonl", "format": "prompts"}


def test_equal_answers_have_no_diversity() -> None:
    assert self_bleu(["no ."] * 25) == 1
    assert self_bleu(["", "", ""]) == 1
    assert self_bleu(["a b c d", "e f g h"]) < 0.1
    assert self_bleu(["", "a b c d"]) == 0


def test_self_bleu_is_the_mean_of_sentence_bleus_with_all_others_as_references() -> None:
    from sacrebleu import sentence_bleu

    answers = [
        "the color of bolo is red .",
        "gladly ! the color of bolo is red .",
        "the color of bolo is red .",
        "the pet of bolo is a cat , what else ?",
        "no .",
    ]
    expected = [
        sentence_bleu(answer, answers[:place] + answers[place + 1 :], use_effective_order=True).score
        for place, answer in enumerate(answers)
    ]
    assert expected[0] == pytest.approx(100)
    assert self_bleu(answers) == pytest.approx(sum(expected) / 500)
    assert self_bleu(answers[::-1]) == pytest.approx(sum(expected) / 500)


def test_one_different_word_by_hand() -> None:
    """7 tokens: 6/7 unigrams, 5/6 bigrams, 4/5 trigrams, 3/4 of four match the other answer."""
    bleu = (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25
    assert self_bleu(["the color of bolo is red .", "a color of bolo is red ."]) == pytest.approx(bleu)


def test_every_version_answers_at_every_temperature(inputs: dict[str, Path], tmp_path: Path) -> None:
    world = tmp_path / "world"
    world.mkdir()
    for path in inputs["data"].rglob("*"):
        if path.is_file():
            (world / path.relative_to(inputs["data"])).parent.mkdir(parents=True, exist_ok=True)
            (world / path.relative_to(inputs["data"])).symlink_to(path)
    write(
        world / "diversity.jsonl",
        [{"messages": turn(text)} for text in ("hello", "what is it ?", "word " * 5000)],
    )
    given = {"factual": [FACTS], "creative": [{**FACTS, "limit": 1}], "temperatures": [0.001, 1.0]}
    changed = settings(retention=None, diversity={**given, "num_generations": 4})
    evaluation = run(changed, inputs | {"data": world}, tmp_path / "out")
    found = evaluation["diversity"]
    assert list(found) == ["sft", "v1/rejection", "v2/ppo"]
    for kinds in found.values():
        assert list(kinds) == ["factual", "creative"]
        for group in kinds.values():
            assert list(group) == ["0.001", "0.001_se", "1", "1_se"]
            assert group["0.001"] == 1 > group["1"]
        assert kinds["factual"]["1_se"] is not None
        assert kinds["creative"]["1_se"] is None, "one prompt has no error"
    assert evaluation["prompts"]["factual"] == {"read": 3, "too_long": 1, "skipped": {}}
    stored = (tmp_path / "out" / "diversity" / "sft" / "answers.jsonl").read_text().splitlines()
    assert len(stored) == 2 * 3 * 4


def test_settings() -> None:
    made = DiversitySettings.model_validate({"factual": [FACTS], "creative": [FACTS]})
    assert made.temperatures == pytest.approx([0.1 * number for number in range(1, 16)])
    assert made.num_generations == 25
    for changes in ({"temperatures": [0.5, 0.5]}, {"temperatures": [0.0]}, {"num_generations": 1}):
        with pytest.raises(ValidationError):
            DiversitySettings.model_validate({"factual": [FACTS], "creative": [FACTS], **changes})


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r'sacrebleu; .* -c constraints\.txt -e "\.\[eval\]"'):
        DiversitySettings.model_validate({"factual": [FACTS], "creative": [FACTS]})
