"""Scores at each row's last index: equal to those of plain transformers, for any batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification

from llamita.chat_format.encoding import encode_answer, encode_prompt
from llamita.errors import LlamitaError
from llamita.model import scoring
from llamita.model.padding import pad_right
from llamita.model.scoring import shared_scores, terminal_scores
from llamita.processes import rank

from ..helpers.rows import turn
from ..helpers.tiny import EOS, ragged_prompts, save_tiny_reward_model
from ..helpers.two_ranks import on_two_ranks

ROWS = [[*prompt, EOS] for prompt in ragged_prompts(11)]

PLAIN = """
import json, sys
sys.modules["llamita"] = None  # importing it fails
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
dialogues = json.load(sys.stdin)
options = {"return_tensors": "pt", "return_dict": True}
with torch.no_grad():
    alone = [model(**tokenizer.apply_chat_template(one, **options)).logits.item() for one in dialogues]
    batch = tokenizer.apply_chat_template(dialogues, padding=True, **options)
    print(json.dumps([alone, model(**batch).logits[:, 0].tolist()]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return save_tiny_reward_model(tmp_path_factory.mktemp("reward"), tokenizer)


@pytest.fixture(scope="module")
def model(folder: Path) -> LlamaForSequenceClassification:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def test_padding_is_on_the_right() -> None:
    ids, last = pad_right([[1, 5, 2], [1, 2], [1, 6, 7, 2]], pad_token_id=9)
    assert ids.tolist() == [[1, 5, 2, 9], [1, 2, 9, 9], [1, 6, 7, 2]]
    assert last.tolist() == [2, 1, 3]
    assert ids.dtype == last.dtype == torch.int64


def test_scores_equal_those_of_plain_transformers_in_the_given_order(
    model: LlamaForSequenceClassification,
) -> None:
    assert len({len(row) for row in ROWS}) > 4, "ragged rows"
    with torch.no_grad():
        alone = torch.stack([model(input_ids=torch.tensor([row])).logits[0, 0] for row in ROWS])
    assert alone.std() > 0.01, "a canary: rows must not score alike"
    for batch_size in (1, 3, 128):
        scores = terminal_scores(model, ROWS, batch_size)
        torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad


def test_batches_have_at_most_the_devices_number_of_tokens(
    model: LlamaForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamita.batches._TOKENS_AT_ONCE", (16, 16))
    read: list[int] = []
    with model.model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    ):
        terminal_scores(model, ROWS)
    assert 1 < len(read) < len(ROWS)
    assert max(read) <= 16


def test_the_pad_id_as_last_token(model: LlamaForSequenceClassification) -> None:
    """A row that ends with the pad id is still read at its own last token."""
    row = [1, 5, 6, 0]
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([row])).last_hidden_state
        expected = model.score(hidden[0, 3])[0]
    found = terminal_scores(model, [row, [1, 5, 6, 7, 8, EOS]])[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_process_without_llamita_computes_the_same_scores(
    folder: Path, model: LlamaForSequenceClassification, tokenizer: Any
) -> None:
    """Uses messages and the folder's own chat template: one by one and as a padded batch."""
    prompts = [turn(f"is it {'red ' * length}?") for length in range(6)]
    prompts.append([{"role": "system", "content": "be fine"}, *turn("hi", "yes"), *turn("again ?")])
    answers = [f"it is {'bolo ' * (length % 3)}" for length in range(len(prompts))]
    dialogues = [
        [*prompt, {"role": "assistant", "content": answer}]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder)],
        input=json.dumps(dialogues),
        capture_output=True,
        text=True,
        check=True,
    )
    alone, batched = json.loads(done.stdout)
    rows = [
        encode_prompt(tokenizer, prompt) + encode_answer(tokenizer, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    assert len({len(row) for row in rows}) > 4, "ragged rows"
    ours = terminal_scores(model, rows, batch_size=3).tolist()
    assert alone == pytest.approx(ours, abs=1e-5)
    assert batched == pytest.approx(ours, abs=1e-5)


def test_two_ranks_share_the_rows_and_both_get_all_scores(
    model: LlamaForSequenceClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an odd number of batches, both take the same number of forward passes, as ZeRO-3 needs it."""
    monkeypatch.setattr(scoring, "SHARED_BATCH", 4)
    expected = terminal_scores(model, ROWS)
    torch.testing.assert_close(shared_scores(model, ROWS, [*map(len, ROWS)]), expected)
    model.train()

    def work() -> tuple[torch.Tensor, int, bool]:
        passes: list[int] = []
        model.register_forward_hook(lambda *_: passes.append(1))
        return shared_scores(model, ROWS, [*map(len, ROWS)]), len(passes), model.training

    for scores, passes, training in on_two_ranks(work, tmp_path):
        torch.testing.assert_close(scores, expected)
        assert (passes, training) == (2, True)
    model.eval()


def test_a_nan_on_one_rank_is_an_error_on_both_if_the_model_is_partitioned(
    model: LlamaForSequenceClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rank would wait for the next pass of the one that has failed."""
    monkeypatch.setattr(model, "partitioned", True, raising=False)

    def work() -> str:
        if rank() == 1:
            with torch.no_grad():
                model.score.weight.fill_(float("nan"))
        with pytest.raises(LlamitaError) as raised:
            terminal_scores(model, ROWS[: 3 + rank()], batch_size=1)
        return str(raised.value)

    for message in on_two_ranks(work, tmp_path):
        assert "4 of 7 scores" in message
