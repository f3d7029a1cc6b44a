"""Log-probabilities and entropies of tokens at a language model's output layer, without a table of logits.

Logits are computed only for the given states, and for a part of the vocabulary at a time; the backward pass
computes them once more. Memory is that of one part in both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MoeModelOutputWithPast

from ..errors import ConfigError

# Logits that are computed at a time: 64 MiB in fp32; on a CPU 4, which fit its caches.
_PART, _PART_ON_CPU = 2**24, 2**20


class OutputLayer(NamedTuple):
    """From the outputs of the layer to log-probabilities, as the model's own forward pass and the sampler do.

    Logits are `cap * tanh(scale * output / cap) / temperature`, without a cap `scale * output / temperature`.

    Attributes:
        scale: factor of the outputs (Cohere, Granite).
        cap: limit of the scaled outputs (Gemma 2); None: no limit.
        temperature: of sampling; above 0.
        pad: id of the pad, which is never sampled, see `excluded_pad_id`; None: every token can be sampled.
    """

    scale: float
    cap: float | None
    temperature: float
    pad: int | None

    @classmethod
    def of(
        cls, model: Any, pad: int | None, temperature: float, *, forward: Callable[..., Any] | None = None
    ) -> OutputLayer:
        """Finds out how a causal language model of transformers turns outputs into logits.

        It runs a forward pass in which decoder and output layer are replaced, so no weights are read: they
        may be partitioned over ranks, which must then all call this.

        Args:
            temperature: 0 (greedy) counts as 1.
            forward: the forward pass of `model`; default: `model` itself.

        Raises:
            ConfigError: the output layer is not linear, or the logits are not those of a scale and a cap.
        """
        return cls(*_scale_and_cap(model, forward or model), temperature or 1.0, pad)

    def logits(self, outputs: Tensor, first: int = 0) -> Tensor:
        """`[states, tokens]` outputs -> logits of the same shape, in fp32 or better.

        The pad's are the lowest number, of probability 0: with -inf the entropy would be NaN.

        Args:
            outputs: outputs of the layer for a range of tokens, any dtype.
            first: the first token of the range.
        """
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.cap is None:
            logits = logits * (self.scale / self.temperature)
        else:
            logits = torch.tanh(logits * (self.scale / self.cap)) * (self.cap / self.temperature)
        if self.pad is not None and first <= self.pad < first + logits.shape[1]:
            logits[:, self.pad - first] = torch.finfo(logits.dtype).min
        return logits

    def slope(self, logits: Tensor) -> Tensor | float:
        """The derivative of `logits` with respect to the layer's outputs, to be ignored at the pad."""
        slope = self.scale / self.temperature
        return slope if self.cap is None else slope * (1 - (logits * (self.temperature / self.cap)).square())


def score_tokens(model: Any, layer: OutputLayer, states: Tensor, *, tokens: Tensor) -> Tensor:
    """Log-probability of one token after each state, and the entropy of the distribution there.

    The layer is called once, and its weights are used only inside this call, as ZeRO-3 needs it.

    Args:
        model: a causal language model of transformers.
        layer: `OutputLayer.of(model)`.
        states: `[states, hidden size]`, last hidden states of its base model.
        tokens: `[states]` int64.

    Returns:
        `[2, states]`, in fp32 (fp64 for a model in fp64): log-probabilities, with gradient, and entropies in
        nats, without.
    """
    head = model.get_output_embeddings()
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype

    def forward(inputs: Tensor) -> Any:
        return _Scores.apply(inputs, head.weight, head.bias, tokens, layer, dtype)

    with _replaced(head, forward):
        scores: Tensor = head(states)
    return scores


class _Scores(torch.autograd.Function):
    """`score_tokens` of a linear layer, part by part; all matrix products are in `dtype`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        states, weight, bias, tokens, layer, dtype = inputs
        wide = torch.promote_types(dtype, torch.float32)
        # sums of exp(logit - peak) and of exp(logit - peak) * (logit - peak) over the vocabulary so far
        total, moment, chosen = states.new_zeros(3, len(states), dtype=wide)
        peak = torch.full_like(total, torch.finfo(wide).min)
        for start, logits in _parts(states, weight, bias, layer=layer, dtype=dtype):
            inside, place = _places(tokens, start, logits.shape[1])
            chosen = torch.where(inside, logits.gather(1, place).squeeze(1), chosen)
            new_peak = torch.maximum(peak, logits.amax(1))
            shift, logits = peak - new_peak, logits.sub_(new_peak[:, None])
            weights = logits.exp()
            moment = (moment + total * shift) * shift.exp() + logits.mul_(weights).sum(1)
            total = total * shift.exp() + weights.sum(1)
            peak = new_peak
        norm = total.log()
        ctx.save_for_backward(states, weight, bias, tokens, peak, norm)
        ctx.layer, ctx.dtype = layer, dtype
        return torch.stack([chosen - peak - norm, norm - moment / total])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, weight, bias, tokens, peak, norm = ctx.saved_tensors
        of_logprobs = gradients[0][0]  # entropies have no gradient
        layer, dtype = ctx.layer, ctx.dtype
        of_states = torch.zeros_like(states, dtype=norm.dtype)
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.empty_like(bias) if ctx.needs_input_grad[2] else None
        inputs = states.to(dtype)
        for start, logits in _parts(states, weight, bias, layer=layer, dtype=dtype):
            end = start + logits.shape[1]
            inside, place = _places(tokens, start, logits.shape[1])
            slope = layer.slope(logits)
            # d logprob / d logit = (1 at the token, else 0) - probability
            gradient = logits.sub_((peak + norm)[:, None]).exp_().mul_(-of_logprobs[:, None])
            gradient.scatter_add_(1, place, (of_logprobs * inside)[:, None])
            gradient.mul_(slope)
            if layer.pad is not None and start <= layer.pad < end:
                gradient[:, layer.pad - start] = 0
            if of_bias is not None:
                of_bias[start:end] = gradient.sum(0)
            product = gradient.to(dtype)
            of_states += product @ weight[start:end].to(dtype)
            if of_weight is not None:
                of_weight[start:end] = product.T @ inputs
        return of_states.to(states.dtype), of_weight, of_bias, None, None, None


def _parts(
    states: Tensor, weight: Tensor, bias: Tensor | None, *, layer: OutputLayer, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """The first token of each part of the vocabulary, and the part's logits `[states, tokens]`."""
    part = _PART_ON_CPU if states.device.type == "cpu" else _PART
    width = max(1, part // max(1, len(states)))
    width = width // 64 * 64 or width  # GPUs multiply such matrices faster
    states = states.to(dtype)
    with torch.autocast(states.device.type, enabled=False):
        for start in range(0, len(weight), width):
            outputs = states @ weight[start : start + width].to(dtype).T
            if bias is not None:
                outputs += bias[start : start + width].to(dtype)
            yield start, layer.logits(outputs, start)


def _places(tokens: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Whether each token is in a part, `[states]`, and its column there, `[states, 1]` (any if it is not)."""
    columns = tokens - start
    return (columns >= 0) & (columns < width), columns.clamp(0, width - 1)[:, None]


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The module with another `forward`; hooks run around it as usual."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


class _DecoderOutput(MoeModelOutputWithPast):
    def __getattr__(self, name: str) -> None:
        """Other fields, which only some architectures pass on."""


def decoder_of(model: Any) -> Any:
    """The part of a causal language model of transformers that computes the output layer's states."""
    decoder = model.get_decoder()
    return model.model if decoder is model else decoder  # Llama 4's text model has no other name for it


def _scale_and_cap(model: Any, forward: Callable[..., Any]) -> tuple[float, float | None]:
    decoder, head = decoder_of(model), model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        kind = type(head)
        raise ConfigError(
            f"{type(model).__name__}: its output layer is a {kind.__module__}.{kind.__name__}, expected "
            "torch's Linear without an adapter; use another architecture or other target_modules of lora"
        )
    hidden_size, vocabulary = head.in_features, head.out_features
    # whole numbers, which no conversion to the dtype of the weights changes
    states = torch.arange(4 * hidden_size, dtype=torch.float64).remainder(100).view(1, 4, hidden_size)
    outputs = torch.linspace(-90, 90, 4 * vocabulary, dtype=torch.float64).view(1, 4, vocabulary)
    outputs[0, 0, 0], outputs[0, 1, 0] = 2.0**-10, 2.0**20  # no cap changes the first; the second reaches it
    seen = []

    def replaced_head(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return outputs.clone()

    def replaced_decoder(*_: Any, **__: Any) -> _DecoderOutput:
        return _DecoderOutput(last_hidden_state=states)

    with torch.no_grad(), _replaced(decoder, replaced_decoder), _replaced(head, replaced_head):
        logits = forward(input_ids=torch.zeros(1, 4, dtype=torch.long), use_cache=False).logits.double()
    scale, highest = float(logits[0, 0, 0]) * 2**10, float(logits[0, 1, 0])
    cap = None if highest > 2**19 * scale else highest
    expected = OutputLayer(scale, cap, 1.0, None).logits(outputs[0])
    unchanged = len(seen) == 1 and torch.equal(seen[0].double(), states)
    if not unchanged or not torch.allclose(logits[0], expected, rtol=1e-5):
        raise ConfigError(
            f"{type(model).__name__}: its logits are not its output layer's, scaled or soft-capped, so "
            "log-probabilities of answers would be wrong; use another architecture"
        )
    return scale, cap
