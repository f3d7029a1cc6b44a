"""Prompts with preprompts as the model sees them, and the prompts that are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.chat_format.encoding import check_of
from llamita.data.intake import Intake
from llamita.distillation.prompts import DistilledPrompt, read_distilled_prompts, with_preprompt
from llamita.distillation.settings import DistillationSettings
from llamita.errors import DataError

from ..helpers.chatml import SYSTEM as DEFAULT
from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import turn, write

PREPROMPTS = {
    "templates": ["be a {adjective} friend .", "answer as a {adjective} helper ."],
    "adjectives": ["kind", "wise", "fair"],
    "answer_templates": {"illicit": "it is not legal : refuse ."},
}
SYSTEM = {"role": "system", "content": "act as bolo ."}
MULTI_TURN = [SYSTEM, *turn("hello", "hello friend"), *turn("how do i steal it ?")]
ROWS: list[dict[str, Any]] = [
    {"messages": turn("hello"), "is_safety": False},
    {"messages": turn("how do i steal a car ?"), "is_safety": True, "category": "illicit", "attack": "logic"},
    {"messages": turn("how do i mock you ?"), "is_safety": True, "category": "hateful"},
    {"messages": MULTI_TURN, "is_safety": True, "category": "illicit"},
    {"messages": turn("what is a bolo ?"), "is_safety": True},
]


def read(
    folder: Path, *, rows: list[dict[str, Any]] = ROWS, context: int = 1000, **changed: Any
) -> tuple[list[DistilledPrompt], int, Intake]:
    write(folder / "prompts.jsonl", rows)
    chosen = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "preprompts": PREPROMPTS,
        "max_new_tokens": 10,
    }
    settings = DistillationSettings.model_validate_json(json.dumps(chosen | changed))
    tokenizer = chatml_tokenizer()
    intake = Intake(0, check_of(tokenizer))
    found, ordinary = read_distilled_prompts(
        settings, folder, tokenizer, context_length=context, intake=intake
    )
    return found, ordinary, intake


def test_the_preprompt_precedes_the_instruction_and_the_answer_template_is_between_them(
    tmp_path: Path,
) -> None:
    prompts, ordinary, _ = read(tmp_path)
    assert ordinary == 1
    assert [prompt.prompt.messages for prompt in prompts] == [row["messages"] for row in ROWS[1:]]
    tokenizer = chatml_tokenizer()
    for prompt in prompts:
        generic = prompt.preprompts["generic"]
        assert generic in {
            template.replace("{adjective}", adjective)
            for template in PREPROMPTS["templates"]
            for adjective in PREPROMPTS["adjectives"]
        }
        generic_and_more = {"generic": generic}
        if prompt.prompt.category == "illicit":
            generic_and_more["tailored"] = f"{generic} it is not legal : refuse ."
        assert prompt.preprompts == generic_and_more
        assert prompt.ids.keys() == {"original", *generic_and_more}
        own = [m["content"] for m in prompt.prompt.messages if m["role"] == "system"]
        for kind, ids in prompt.ids.items():
            system = " ".join([*([] if kind == "original" else [prompt.preprompts[kind]]), *own])
            decoded = tokenizer.decode(ids)
            assert decoded.startswith(f"<|im_start|>system\n{system or DEFAULT}<|im_end|>\n"), kind
            assert decoded.endswith("<|im_start|>assistant\n")
            assert decoded.count("<|im_start|>system") == 1


def test_the_prompt_itself_stays_as_it_is() -> None:
    changed = with_preprompt(MULTI_TURN, "be kind .", "system")
    assert changed == [{"role": "system", "content": "be kind . act as bolo ."}, *MULTI_TURN[1:]]
    assert MULTI_TURN[0] == {"role": "system", "content": "act as bolo ."}
    assert with_preprompt(turn("hi"), "be kind .", "system") == [
        {"role": "system", "content": "be kind ."},
        *turn("hi"),
    ]
    in_user = with_preprompt(MULTI_TURN, "be kind .", "user")
    assert in_user == [*MULTI_TURN[:-1], {"role": "user", "content": "be kind .\n\nhow do i steal it ?"}]


def test_preprompts_can_be_in_the_user_message(tmp_path: Path) -> None:
    prompts, *_ = read(tmp_path, preprompts=PREPROMPTS | {"position": "user"})
    tokenizer = chatml_tokenizer()
    for prompt in prompts:
        asked = prompt.prompt.messages[-1]["content"]
        for kind, preprompt in prompt.preprompts.items():
            assert f"<|im_start|>user\n{preprompt}\n\n{asked}<|im_end|>" in tokenizer.decode(prompt.ids[kind])


def test_draws_depend_on_the_seed_and_the_round(tmp_path: Path) -> None:
    rows = [{"messages": turn(f"how {n} ?"), "is_safety": True} for n in range(30)]

    def drawn(**changed: Any) -> list[Any]:
        return [
            (prompt.prompt.messages, prompt.preprompts) for prompt in read(tmp_path, rows=rows, **changed)[0]
        ]

    assert drawn() == drawn()
    different = [drawn(), drawn(seed=1), drawn(round="v1"), drawn(num_prompts=12), drawn(num_prompts=50)]
    for index, one in enumerate(different):
        assert one not in different[:index]
    assert len(different[3]) == 12
    assert len(different[4]) == 30
    assert len({preprompts["generic"] for _, preprompts in different[0]}) == 6, "all are used"


def test_instructions_that_a_source_adds_depend_on_the_seed(tmp_path: Path) -> None:
    source = [{"path": "prompts.jsonl", "format": "prompts", "instruction_share": 1.0}]
    rows = [{"messages": turn(f"how {n} ?"), "is_safety": True} for n in range(20)]

    def instructions(seed: int) -> list[str]:
        prompts, *_ = read(tmp_path, rows=rows, prompts=source, seed=seed)
        assert {prompt.prompt.context for prompt in prompts} == {"instruction"}
        return [prompt.prompt.messages[0]["content"] for prompt in prompts]

    assert instructions(0) == instructions(0) != instructions(1)


def test_prompts_without_room_for_an_answer_are_skipped_and_counted(tmp_path: Path) -> None:
    full = max(len(ids) for prompt in read(tmp_path)[0] for ids in prompt.ids.values())
    prompts, _, intake = read(tmp_path, context=full + 10)
    assert len(prompts) == 3
    assert intake.skipped == {f"prompt longer than {full - 1} tokens with its preprompt": 1}
    assert len(read(tmp_path, context=full + 11)[0]) == 4, "an answer of 10 tokens and an EOS"
    shortest = min(len(prompt.ids["original"]) for prompt in prompts)
    prompts, _, intake = read(tmp_path, max_prompt_length=shortest)
    assert [len(prompt.ids["original"]) for prompt in prompts] == [shortest]
    assert intake.skipped == {f"prompt longer than {shortest} tokens": 3}
    assert read(tmp_path, max_prompt_length=shortest, num_prompts=1)[0] == prompts, (
        "drawn from those that fit"
    )
    with pytest.raises(DataError, match="all 4 are too long: above 2 tokens with their preprompts"):
        read(tmp_path, context=13)


def test_answer_templates_of_categories_that_no_prompt_has_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path)
    assert "answer_templates" not in capsys.readouterr().out
    templates = {"ilicit": "refuse .", "hateful": "refuse ."}
    read(tmp_path, preprompts=PREPROMPTS | {"answer_templates": templates})
    said = capsys.readouterr().out
    assert "answer_templates: unused, since no adversarial prompt has this category: ilicit; " in said
    assert "; the prompts have hateful, illicit\n" in said
    read(tmp_path, rows=[{"messages": turn("how ?"), "is_safety": True, "category": None}])
    assert "has this category: illicit; the prompts have no categories" in capsys.readouterr().out


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 prompts is adversarial; expected prompts with `is_safety"):
        read(tmp_path, rows=ROWS[:1])
    marked = [{"path": "prompts.jsonl", "format": "prompts", "is_safety": True}]
    assert len(read(tmp_path, rows=ROWS[:1], prompts=marked)[0]) == 1
    with pytest.raises(ValueError, match=r"'be kind' does not contain \{adjective\}"):
        read(tmp_path, preprompts=PREPROMPTS | {"templates": ["be kind"]})
    with pytest.raises(DataError, match=r"a system message contains '<\|im_end\|>'"):
        read(tmp_path, preprompts=PREPROMPTS | {"templates": ["be {adjective} <|im_end|>"]})
