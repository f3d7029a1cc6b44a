from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from llamita.errors import DataError, LlamitaError
from llamita.model import scorer as scorer_module
from llamita.model.scorer import Scorer

from ..helpers.tiny import EOS, ragged_prompts, save_tiny_model, save_tiny_reward_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("reward") / "model", tokenizer)


def test_the_score_equals_that_of_plain_transformers(folder: Path, tokenizer: Any) -> None:
    prompts = ragged_prompts(9)
    answers = [[*prompt[1:4], 9] for prompt in ragged_prompts(9, seed=1)]
    found = Scorer(folder, tokenizer, batch_size=4)(prompts, answers)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for prompt, answer, score in zip(prompts, answers, found, strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([[*prompt, *answer, EOS]])).logits[0, 0]
        assert torch.sigmoid(alone).item() == pytest.approx(score.item(), abs=1e-6)
    rows = [torch.tensor([*prompt, *answer, EOS]) for prompt, answer in zip(prompts, answers, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    with torch.no_grad():
        batch = model(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, 0]
    torch.testing.assert_close(batch.double().sigmoid(), found, atol=1e-6, rtol=0)


def test_bfloat16_scores_are_close_and_the_head_is_computed_in_float32(folder: Path, tokenizer: Any) -> None:
    prompts = ragged_prompts(9)
    answers = [[*prompt[1:4], 9] for prompt in ragged_prompts(9, seed=1)]
    exact, half = (
        Scorer(folder, tokenizer, dtype=dtype).raw(prompts, answers) for dtype in ("float32", "bfloat16")
    )
    assert not torch.equal(exact, half), "a canary: the body has computed in half precision"
    torch.testing.assert_close(half, exact, atol=0.05, rtol=0.05)
    assert not torch.equal(half, half.bfloat16().float()), "scores are not rounded to half precision"
    assert Scorer(folder, tokenizer, dtype="bfloat16").model.score.weight.dtype == torch.float32


def test_the_score_is_read_at_the_eos(folder: Path, tokenizer: Any) -> None:
    scorer = Scorer(folder, tokenizer)
    one, other = scorer.raw([[1, 5], [1, 5]], [[8], [9]])
    assert one != other, "a canary: two answers must not score alike"
    scorer.model.config.pad_token_id = EOS
    assert scorer.raw([[1, 5]], [[8]]) == one, "nothing is inferred from pads"


def test_weights_are_on_the_device_only_while_it_scores(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Scorer(folder, tokenizer).raw([[1, 5]], [[8]])
    scorer, used = Scorer(folder, tokenizer, offloaded=True), list[list[int]]()

    def sizes() -> list[int]:
        return [weight.numel() for weight in scorer.model.parameters()]

    def noting(*_: Any, **__: Any) -> None:
        used.append(sizes())
        raise KeyError

    assert not any(sizes())
    for _ in range(2):
        assert scorer.raw([[1, 5]], [[8]]) == expected
    monkeypatch.setattr(scorer_module, "terminal_scores", noting)
    with pytest.raises(KeyError):
        scorer.raw([[1, 5]], [[8]])
    assert all(used[0])
    assert not any(sizes()), "an error leaves no weights behind"


def test_another_tokenizer_raises_an_error_before_the_weights_are_loaded(
    folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamita.tokenizer.bpe import train_bpe

    def loaded(*_: object) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(scorer_module, "load_reward_model", loaded)
    with pytest.raises(DataError, match="same tokenizer"):
        Scorer(folder, train_bpe(["other words than the others"] * 50, 300))


def test_a_folder_without_a_head_raises_an_error(tmp_path: Path, tokenizer: Any) -> None:
    folder = save_tiny_model(tmp_path / "model", tokenizer)
    with pytest.raises(DataError, match="score"):
        Scorer(folder, tokenizer)


def test_nan_scores_raise_an_error(folder: Path, tokenizer: Any) -> None:
    scorer = Scorer(folder, tokenizer)
    with torch.no_grad():
        scorer.model.score.weight.fill_(float("nan"))
    with pytest.raises(LlamitaError, match=rf"{folder}: 2 of 2 scores are NaN"):
        scorer([[1, 5], [1, 6]], [[8], [9]])
