"""Which prompts fit in a model's context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamita.chat_format.encoding import encode_prompt, encode_questions
from llamita.red_team.answers import sample_answers
from llamita.red_team.prompts import RedTeamPrompt
from llamita.red_team.settings import RedTeamSettings
from llamita.sampling.engines import Samplers

from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import turn
from ..helpers.tiny import save_tiny_model

NEW_TOKENS = 5
OPENING, REQUEST, LONG = "hello friend", "is it red?", "what is a bolo? " * 3


def prompt(name: str, request: str, *openings: str) -> RedTeamPrompt:
    return RedTeamPrompt(name, name, "given", turn(request), openings)


@pytest.fixture
def settings() -> RedTeamSettings:
    values = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "max_new_tokens": NEW_TOKENS,
        "judge": {"by": "rules"},
    }
    return RedTeamSettings.model_validate_json(json.dumps(values))


def answered(settings: RedTeamSettings, folder: Path, context: int) -> set[str]:
    """The ids of the prompts that a model with this context answers."""
    save_tiny_model(folder, chatml_tokenizer(), max_position_embeddings=context)
    prompts = [prompt("direct", REQUEST), prompt("long", LONG), prompt("dialogue", REQUEST, OPENING)]
    path = folder / "answers.jsonl"
    with Samplers(settings, dtype=settings.dtype, working=folder) as samplers:
        answers = sample_answers(settings, folder, prompts, samplers=samplers, label="v1", path=path)
    return {one.prompt for one in answers}


def test_prompts_that_do_not_fit_have_no_answer(settings: RedTeamSettings, tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    direct, long = (len(encode_prompt(tokenizer, turn(text))) + NEW_TOKENS for text in (REQUEST, LONG))
    turns = sum(map(len, encode_questions(tokenizer, [OPENING, REQUEST])))
    whole = turns + 2 * NEW_TOKENS + 1  # with an EOS after the first answer, which is truncated
    assert direct < long < turns + NEW_TOKENS
    assert answered(settings, tmp_path / "tiny", direct - 1) == set()
    assert answered(settings, tmp_path / "short", direct) == {"direct"}
    assert answered(settings, tmp_path / "middle", long) == {"direct", "long"}
    assert answered(settings, tmp_path / "long", whole) == {"direct", "long", "dialogue"}
