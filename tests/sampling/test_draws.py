from __future__ import annotations

import torch

from llamita.sampling.draws import draw, uniforms


def test_rows_depend_on_seed_and_name_only() -> None:
    table = uniforms(3, [(0, 0), (0, 1), (7, 0)], 50)
    assert torch.equal(uniforms(3, [(7, 0)], 50)[0], table[2])
    assert torch.equal(uniforms(3, [(0, 1)], 20)[0], table[1, :20])
    assert not torch.equal(uniforms(4, [(7, 0)], 50)[0], table[2])
    assert len(set(table.flatten().tolist())) == 150


def test_uniforms_are_uniform() -> None:
    table = uniforms("any text", [(prompt, sample) for prompt in range(100) for sample in range(5)], 20)
    assert table.min() >= 0
    assert table.max() < 1
    counts = torch.histc(table.float(), bins=10, min=0, max=1)
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()
    # Neighbouring names and steps are no closer to each other than strangers.
    for left, right in ((table[:-1], table[1:]), (table[:, :-1], table[:, 1:])):
        correlation = torch.corrcoef(torch.stack((left.flatten(), right.flatten())))[0, 1]
        assert correlation.abs() < 0.05


def test_draw_inverts_the_distribution_function_by_hand() -> None:
    logprobs = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.25]).log().repeat(7, 1)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 0.99, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(logprobs, uniform).tolist() == [1, 1, 2, 2, 4, 4, 4]


def test_a_token_without_probability_at_the_end_is_not_drawn() -> None:
    logprobs = torch.tensor([[0.3, 0.7, 0.0]]).log()
    assert draw(logprobs, torch.tensor([1 - 2.0**-53], dtype=torch.float64)).tolist() == [1]
