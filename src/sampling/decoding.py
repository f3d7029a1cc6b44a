"""How the next token is chosen: temperature, top-p (nucleus sampling), and the draw itself."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .draws import draw
from .logprobs import policy_logprobs

_LIKELY = 64  # a nucleus rarely has more tokens; these are found without sorting the vocabulary


class Decoding(NamedTuple):
    """Temperature (0 is greedy, whatever `top_p`) and top-p (1 keeps every token)."""

    temperature: float = 1.0
    top_p: float = 1.0


def next_tokens(
    logits: Tensor, uniform: Tensor, pad: int | None, *, decoding: Decoding
) -> tuple[Tensor, Tensor]:
    """Chooses the next token of each row.

    Args:
        logits: `[rows, vocabulary]` of any dtype.
        uniform: `[rows]` float64 random numbers in [0, 1); greedy decoding ignores them.
        pad: the pad id to exclude, see `excluded_pad_id`.

    Returns:
        Tokens, `[rows]` int64, and their log-probabilities, `[rows]` fp32, in the distribution that they were
        drawn from: at the temperature, and with top-p restricted to the nucleus and renormalised. Those of
        greedy tokens are at temperature 1 without top-p.
    """
    logprobs = policy_logprobs(logits, pad, decoding.temperature)
    if decoding.temperature > 0:
        if decoding.top_p < 1:
            logprobs = nucleus(logprobs, decoding.top_p)
        tokens = draw(logprobs, uniform)
    else:
        tokens = logprobs.argmax(-1)
    return tokens, logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def nucleus(logprobs: Tensor, top_p: float) -> Tensor:
    """Restricts distributions to the smallest set of likeliest tokens with a total of at least `top_p`.

    Tokens that are exactly as likely as the set's least likely one belong to it as well, so the result does
    not depend on the order in which a sort leaves ties.

    Args:
        logprobs: `[rows, vocabulary]` fp32, normalised.
        top_p: probability in (0, 1).

    Returns:
        `[rows, vocabulary]` fp32, normalised; -inf for all other tokens.
    """
    likely = logprobs.topk(min(_LIKELY, logprobs.shape[-1])).values
    least = _least_likely(likely, top_p)
    wide = likely.double().exp().sum(-1) < top_p  # rows whose nucleus has more tokens
    if bool(wide.any()):
        least[wide] = _least_likely(logprobs[wide].sort(descending=True).values, top_p)
    kept = logprobs.masked_fill(logprobs < least, float("-inf"))
    return kept - kept.logsumexp(-1, keepdim=True)


def _least_likely(logprobs: Tensor, top_p: float) -> Tensor:
    """Returns `[rows, 1]`: the last log-probability of the nucleus; `logprobs` are in descending order."""
    probabilities = logprobs.double().exp()
    before = probabilities.cumsum(-1) - probabilities  # probability of all likelier tokens
    return logprobs.gather(-1, (before < top_p).sum(-1, keepdim=True) - 1)
