"""Instruction following: own answers in the history, the instruction in the first turn, no truncation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamita.chat_format.encoding import encode_prompt
from llamita.evaluation.instructed import InstructedDialogue
from llamita.evaluation.responder import Responder, SampledAnswer
from llamita.evaluation.retention import measure_retention
from llamita.measures import RETENTION_TURNS

MakeResponder = Callable[..., Responder]


class StubScorer:
    """Dialogue "a" must be answered with "ay", "b" with "bee"; only "a" has a direct question."""

    def follows(self, row_id: str, answer: str) -> bool:
        return answer == {"a": "ay", "b": "bee"}[row_id]

    def explicit_question(self, row_id: str) -> str | None:
        return "what do you say" if row_id == "a" else None

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool:
        return answer == "i say ay"


def dialogue(name: str) -> InstructedDialogue:
    return InstructedDialogue(name, f"say {name}", [f"{name} question {turn}" for turn in range(1, 21)])


def turn_of(prompt: str) -> int:
    return prompt.count("[INST]")


def test_instruction_in_the_first_turn_and_own_answers_in_the_history(
    make_responder: MakeResponder,
) -> None:
    responder = make_responder(lambda prompt: f"answer {turn_of(prompt)}")
    measure_retention(responder, StubScorer(), [dialogue("a")])
    implicit = [batch[0] for batch in responder.sampler.batches if "question" in batch[0].split("[INST]")[-1]]
    assert implicit[0] == "<s> [INST] <<SYS>> say a <</SYS>> a question 1 [/INST]"
    assert implicit[2] == (
        "<s> [INST] <<SYS>> say a <</SYS>> a question 1 [/INST] answer 1 </s> "
        "<s> [INST] a question 2 [/INST] answer 2 </s> <s> [INST] a question 3 [/INST]"
    )
    assert len(implicit) == 20
    assert all(prompt.count("say a") == 1 for prompt in implicit)


def test_turn_by_turn_encoding_equals_that_of_the_whole_chat(make_responder: MakeResponder) -> None:
    responder = make_responder(lambda prompt: f"answer {turn_of(prompt)}")
    measure_retention(responder, StubScorer(), [dialogue("b")])
    messages = [{"role": "system", "content": "say b"}]
    for turn in range(1, 21):
        messages.append({"role": "user", "content": f"b question {turn}"})
        if turn < 20:
            messages.append({"role": "assistant", "content": f"answer {turn}"})
    whole = encode_prompt(responder.tokenizer, messages)
    assert responder.sampler.batches[19][0] == responder.tokenizer.decode(whole, skip_special_tokens=False)


def test_rates_by_turn(make_responder: MakeResponder) -> None:
    """Dialogue "b" fails from turn 4; "a" never does, but answers the direct question wrong from turn 6."""

    def answer(prompt: str) -> str:
        if "what do you say" in prompt:
            return "i say ay" if turn_of(prompt) < 6 else "i forgot"
        return "ay" if "say a" in prompt else "bee" if turn_of(prompt) < 4 else "hm"

    found = measure_retention(make_responder(answer), StubScorer(), [dialogue("a"), dialogue("b")])
    assert [found.implicit[str(turn)] for turn in RETENTION_TURNS] == [1, 1, 0.5, 0.5, 0.5, 0.5]
    assert [found.explicit[str(turn)] for turn in RETENTION_TURNS] == [1, 1, 1, 0, 0, 0]
    assert found.implicit["4_se"] == pytest.approx(0.5)
    assert found.counts == {
        "started": 2,
        "outgrown": 0,
        "reached": {str(turn): 2 for turn in RETENTION_TURNS},
        "asked": {str(turn): 1 for turn in RETENTION_TURNS},
    }


def test_direct_questions_are_not_part_of_the_history(make_responder: MakeResponder) -> None:
    responder = make_responder(lambda prompt: f"answer {turn_of(prompt)}")
    measure_retention(responder, StubScorer(), [dialogue("a"), dialogue("a")])  # every fourth one is asked
    asked = [prompt for batch in responder.sampler.batches for prompt in batch if "what do you say" in prompt]
    assert [turn_of(prompt) for prompt in asked] == list(RETENTION_TURNS)
    assert all(prompt.split("[INST]")[-1] == " what do you say [/INST]" for prompt in asked[1:])
    assert all(prompt.count("what do you say") == 1 for prompt in asked)
    assert asked[0] == "<s> [INST] <<SYS>> say a <</SYS>> what do you say [/INST]"
    assert asked[2] == (
        "<s> [INST] <<SYS>> say a <</SYS>> a question 1 [/INST] answer 1 </s> "
        "<s> [INST] a question 2 [/INST] answer 2 </s> <s> [INST] a question 3 [/INST] answer 3 </s> "
        "<s> [INST] what do you say [/INST]"
    )


def test_dialogues_that_exceed_the_context_are_counted_not_truncated(make_responder: MakeResponder) -> None:
    """A turn of "a" has 8 tokens (BOS, tags, question, answer, EOS), one of "b" 11, the instruction 4."""

    def answer(prompt: str) -> str:
        return "ay" if "say a" in prompt else "bee bee bee bee"

    context = 8 + 20 * 8 + 4
    found = measure_retention(make_responder(answer, context), StubScorer(), [dialogue("a"), dialogue("b")])
    assert (found.counts["started"], found.counts["outgrown"]) == (2, 1)
    assert found.counts["reached"] == {"1": 2, "2": 2, "4": 2, "6": 2, "10": 2, "20": 1}
    assert found.implicit["10"] == 0.5
    assert found.implicit["20"] == 1.0
    assert found.implicit["20_se"] is None  # one dialogue left


def test_rates_are_null_if_every_dialogue_exceeds_the_context(make_responder: MakeResponder) -> None:
    found = measure_retention(make_responder(lambda prompt: "ay", 60), StubScorer(), [dialogue("a")])
    assert found.implicit["20"] is None
    assert (found.counts["started"], found.counts["outgrown"]) == (1, 1)
    assert found.counts["reached"]["20"] == 0


def test_direct_questions_that_do_not_fit_are_counted(make_responder: MakeResponder) -> None:
    responder = make_responder(lambda prompt: "ay")
    responder.fits = lambda prompt: len(prompt) < 100
    found = measure_retention(responder, StubScorer(), [dialogue("a")])
    assert found.counts["asked"] == {"1": 1, "2": 1, "4": 1, "6": 1, "10": 1, "20": 0}
    assert found.counts["reached"]["20"] == 1
    assert found.explicit["20"] is None


def test_errors_are_clustered_by_instruction(make_responder: MakeResponder) -> None:
    def answer(prompt: str) -> str:
        return "ay" if "say a" in prompt else "hm"

    twice = [dialogue(name) for name in "aabb"]
    found = measure_retention(make_responder(answer), StubScorer(), twice).implicit
    assert found["1"] == 0.5
    assert found["1_se"] == pytest.approx(0.5)  # of two instructions; of four dialogues it would be 0.29


def test_seeds_of_the_draws(make_responder: MakeResponder) -> None:
    responder = make_responder(lambda prompt: "ay")
    measure_retention(responder, StubScorer(), [dialogue("a")])
    assert set(responder.sampler.seeds) == {"0/dialogues", "0/direct questions"}


def test_truncated_answers_end_with_eos_in_the_history(make_responder: MakeResponder) -> None:
    responder = make_responder(lambda prompt: "ay")
    truncated, finished = (
        SampledAnswer([7, 8], "x", finished=False),
        SampledAnswer([7, 2], "x", finished=True),
    )
    assert responder.history([[1, 5], [1, 6]], [truncated, finished]) == [1, 5, 7, 8, 2, 1, 6, 7, 2]
