"""Where each dialogue is, token by token; the whole of it is tested with the sampler of dialogues."""

from __future__ import annotations

import torch

from llamita.sampling.draws import uniforms
from llamita.sampling.turns import Turns, max_length

EOS, OTHER = 2, 3  # both end an answer; the first one follows a truncated answer
LIMIT = 3


def turns(prompts: list[list[list[int]]], context: int = 100) -> Turns:
    longest = max(map(len, prompts))
    names = [(row, turn) for row in range(len(prompts)) for turn in range(longest)]
    uniform = uniforms("s", names, LIMIT).view(len(prompts), longest, LIMIT)
    return Turns(prompts, uniform, context, eos=torch.tensor([EOS, OTHER]))


def test_each_row_advances_by_itself() -> None:
    state = turns([[[1, 10], [1, 11, 12]], [[1, 20]]])
    assert state.first_prompts == [[1, 10], [1, 20]]
    rows = torch.arange(2)
    draws = ([5, 6], [OTHER, 7], [0, 8], [0, 0], [0, 0], [9, 0], [9, 0], [9, 0])
    fed = [state.advance(rows, torch.tensor(sampled)).tolist() for sampled in draws]
    assert [row[0] for row in fed] == [5, OTHER, 1, 11, 12, 9, 9, 9]
    assert [row[1] for row in fed[:3]] == [6, 7, 8]
    assert state.answers() == [[[5, OTHER], [9, 9, 9]], [[6, 7, 8]]]
    assert state.over.tolist() == [True, True]
    assert state.ended == 3


def test_an_eos_follows_an_answer_that_is_truncated() -> None:
    state, row = turns([[[1, 10], [1, 11]]]), torch.arange(1)
    fed = [int(state.advance(row, torch.tensor([token]))) for token in (5, 6, 7, 0, 0, 0, EOS)]
    assert fed == [5, 6, 7, EOS, 1, 11, EOS]
    assert state.answers() == [[[5, 6, 7], [EOS]]]


def test_a_turn_that_does_not_fit_is_not_begun() -> None:
    """After 2 + 1 tokens the next prompt and its longest answer need 2 + 3 more."""
    for context, over in ((8, False), (7, True)):
        state = turns([[[1, 10], [1, 11]]], context)
        state.advance(torch.arange(1), torch.tensor([EOS]))
        assert state.over.tolist() == [over]
    truncated = turns([[[1, 10], [1, 11]]], 10)  # an EOS makes it 2 + 3 + 1 + 2 + 3
    for _ in range(LIMIT):
        truncated.advance(torch.arange(1), torch.tensor([5]))
    assert truncated.over.tolist() == [True]


def test_random_numbers_are_those_of_the_answers_turn_and_place() -> None:
    state, table = turns([[[1], [1]], [[1], [1]]]), uniforms("s", [(0, 0), (0, 1), (1, 0), (1, 1)], LIMIT)
    rows = torch.tensor([1, 0])
    assert state.numbers(rows).tolist() == [table[2, 0], table[0, 0]]
    state.advance(rows, torch.tensor([5, EOS]))
    assert state.numbers(rows)[0] == table[2, 1]
    for _ in range(2):  # row 0: its prompt, then an answer
        state.advance(rows, torch.tensor([5, 5]))
    assert state.numbers(rows)[1] == table[1, 1]


def test_dropped_rows_stay_as_they_are() -> None:
    state = turns([[[1, 10]], [[1, 20]]])
    state.advance(torch.arange(2), torch.tensor([EOS, 5]))
    for _ in range(2):
        state.advance(torch.tensor([1]), torch.tensor([6]))
    assert state.answers() == [[[EOS]], [[5, 6, 6]]]


def test_the_upper_limit_of_a_dialogue() -> None:
    assert max_length([[1, 10], [1]], 5, 100) == 3 + 2 * 6
    assert max_length([[1, 10], [1]], 5, 9) == 9
