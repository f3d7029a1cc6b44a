"""Log-probabilities at the output layer, against a table of logits and the models' own forward passes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from llamita.errors import ConfigError
from llamita.sampling import output_layer
from llamita.sampling.output_layer import OutputLayer, decoder_of, score_tokens

from ..helpers.architectures import OTHERS, SHAPE, tiny_architecture
from ..helpers.peak_memory import Bytes
from ..helpers.tiny import tiny_model

STATES, SIZE, VOCABULARY = 11, 6, 23
PLAIN = OutputLayer(1.0, None, 1.0, None)
LAYERS = {
    "plain": PLAIN,
    "temperature and pad": OutputLayer(1.0, None, 0.7, 3),
    "scale": OutputLayer(0.3, None, 1.4, 0),
    "scale and cap": OutputLayer(0.8, 2.0, 1.4, 22),
}


def material(dtype: torch.dtype, *, bias: bool = False) -> tuple[Any, Tensor, Tensor]:
    """A model that is only an output layer, states with gradient, and tokens, none of which is a pad."""
    torch.manual_seed(0)
    head = nn.Linear(SIZE, VOCABULARY, bias=bias, dtype=dtype)
    states = (torch.randn(STATES, SIZE, dtype=dtype) * 3).requires_grad_()
    return SimpleNamespace(get_output_embeddings=lambda: head), states, torch.arange(4, 4 + STATES)


def plain_scores(layer: OutputLayer, head: nn.Linear, states: Tensor, tokens: Tensor) -> Tensor:
    logits = head(states) * layer.scale
    if layer.cap is not None:
        logits = layer.cap * (logits / layer.cap).tanh()
    logits = logits / layer.temperature
    if layer.pad is not None:
        logits = logits.index_fill(1, torch.tensor([layer.pad]), -torch.inf)
    logprobs = logits.log_softmax(1)
    entropies = [-sum(p * p.log() for p in row.exp() if p > 0) for row in logprobs.detach()]
    return torch.stack([logprobs[range(len(tokens)), tokens], torch.stack(entropies)])


def gradients(scores: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Of a sum of log-probabilities in which each has another weight."""
    return torch.autograd.grad((scores[0] * torch.linspace(-1, 2, STATES)).sum(), inputs)


@pytest.mark.parametrize("part", [1, 2 * STATES, 5 * STATES, 2**24], ids=lambda part: f"part of {part}")
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_values_and_gradients_are_those_of_the_whole_table(
    kind: str, bias: bool, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_layer, "_PART_ON_CPU", part)
    layer = LAYERS[kind]
    for dtype, accuracy in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        model, states, tokens = material(dtype, bias=bias)
        head = model.get_output_embeddings()
        expected, found = (
            plain_scores(layer, head, states, tokens),
            score_tokens(model, layer, states, tokens=tokens),
        )
        torch.testing.assert_close(found, expected, atol=accuracy, rtol=accuracy)
        inputs = [states, *head.parameters()]
        for one, other in zip(gradients(found, *inputs), gradients(expected, *inputs), strict=True):
            torch.testing.assert_close(one, other, atol=10 * accuracy, rtol=10 * accuracy)


def test_extreme_logits_stay_finite() -> None:
    model, states, tokens = material(torch.float32)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e4)
    scores = score_tokens(model, LAYERS["temperature and pad"], states, tokens=tokens)
    assert scores.isfinite().all()
    assert scores[1].min() >= 0
    (gradient,) = gradients(scores, states)
    assert gradient.isfinite().all()


def test_a_frozen_layer_gets_no_gradient() -> None:
    model, states, tokens = material(torch.float64)
    model.get_output_embeddings().weight.requires_grad_(False)
    score_tokens(model, PLAIN, states, tokens=tokens)[0].sum().backward()
    assert states.grad is not None
    assert model.get_output_embeddings().weight.grad is None


def test_entropies_have_no_gradient() -> None:
    model, states, tokens = material(torch.float64)
    score_tokens(model, PLAIN, states, tokens=tokens)[1].sum().backward()
    assert states.grad is not None
    assert states.grad.abs().max() == 0


def test_autocast_computes_in_half_precision_and_sums_in_fp32() -> None:
    model, states, tokens = material(torch.float32, bias=True)
    head = model.get_output_embeddings()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(states)
        found = score_tokens(model, PLAIN, states, tokens=tokens)
    assert logits.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    own = logits.float().log_softmax(1)[range(STATES), tokens]
    exact = plain_scores(PLAIN, head, states, tokens)[0]
    assert (found[0] - own).abs().max() < 2e-2
    assert 0 < (found[0] - exact).abs().max() < 5e-2
    for one, other in zip(gradients(found, states), torch.autograd.grad(own.sum(), states), strict=True):
        assert one.dtype == other.dtype == torch.float32


def test_the_layer_is_called_once_through_its_hooks_and_then_as_before() -> None:
    model, states, tokens = material(torch.float64)
    head, calls = model.get_output_embeddings(), []
    head.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0].shape, output.shape)))
    score_tokens(model, PLAIN, states, tokens=tokens)
    assert calls == [((STATES, SIZE), (2, STATES))]
    assert head(states).shape == (STATES, VOCABULARY)


def peak(vocabulary: int, work: Callable[[Any, Tensor, Tensor], None]) -> int:
    """Bytes at most, besides weights, their gradients, states and the states' gradients."""
    torch.manual_seed(0)
    head, states = nn.Linear(8, vocabulary, bias=False), torch.randn(256, 8, requires_grad=True)
    head.weight.grad, states.grad = torch.zeros_like(head.weight), torch.zeros_like(states)
    tokens = torch.arange(256)
    with Bytes([head.weight, head.weight.grad, states, states.grad, tokens]) as counted:
        work(SimpleNamespace(get_output_embeddings=lambda: head), states, tokens)
    return counted.peak - head.weight.nbytes  # the gradient of this pass, before it is added


def test_memory_is_that_of_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(model: Any, states: Tensor, tokens: Tensor) -> None:
        logits = model.get_output_embeddings()(states)
        logits.log_softmax(1)[range(256), tokens].sum().backward()

    def by_parts(model: Any, states: Tensor, tokens: Tensor) -> None:
        score_tokens(model, PLAIN, states, tokens=tokens)[0].sum().backward()

    part = 2**14  # 64 columns
    monkeypatch.setattr(output_layer, "_PART_ON_CPU", part)
    assert max(peak(vocabulary, by_parts) for vocabulary in (1_000, 8_000)) < 5 * 4 * part
    assert peak(8_000, whole) > 2 * 4 * 256 * 8_000


SCALED: dict[str, dict[str, Any]] = {
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
}


def architecture(name: str) -> Any:
    if name in OTHERS:
        return tiny_architecture(name)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SHAPE | SCALED[name])).eval()


@pytest.mark.parametrize("name", [*SCALED, "gemma2", "llama4_text", "opt", "bloom", "gpt_oss", "lfm2"])
def test_every_architecture_gives_what_its_own_forward_gives(name: str) -> None:
    model = architecture(name)
    layer = OutputLayer.of(model, 0, 1.3)
    assert (layer.scale, layer.cap) == {
        "granite": (pytest.approx(1 / 3), None),
        "cohere": (0.25, None),
        "gemma2": (pytest.approx(1), 30.0),
    }.get(name, (1.0, None))
    ids = torch.randint(3, 60, (2, 15), generator=torch.Generator().manual_seed(0))
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1) / 1.3
    tokens = ids[:, 1:].flatten()
    own = logits.index_fill(1, torch.tensor([0]), -torch.inf).log_softmax(1)[range(len(tokens)), tokens]
    states = decoder_of(model)(input_ids=ids[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
    found = score_tokens(model, layer, states, tokens=tokens)[0]
    torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-5)
    if name in ("granite", "gemma2"):
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        for one, other in zip(*(torch.autograd.grad(x.sum(), weights) for x in (found, own)), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_another_kind_of_logits_is_an_error() -> None:
    """MiniCPM3 scales the states too."""
    config = AutoConfig.for_model("minicpm3", **SHAPE)
    with pytest.raises(ConfigError, match=r"MiniCPM3ForCausalLM.*another architecture"):
        OutputLayer.of(AutoModelForCausalLM.from_config(config), 0, 1.0)

    model = tiny_model()
    own = model.forward

    def squared(**inputs: Any) -> Any:
        output = own(**inputs)
        output.logits = output.logits.square()
        return output

    model.forward = squared
    with pytest.raises(ConfigError, match="LlamaForCausalLM"):
        OutputLayer.of(model, 0, 1.0)


def test_an_adapter_of_the_output_layer_is_an_error() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_model(), peft.LoraConfig(target_modules=["lm_head"])).base_model.model
    with pytest.raises(ConfigError, match=r"is a peft\..*Linear, expected torch's Linear without an adapter"):
        OutputLayer.of(model, 0, 1.0)


def test_weights_are_not_read_to_find_the_kind_of_logits() -> None:
    """Under ZeRO-3 they are empty."""
    model = tiny_model()
    for weight in model.parameters():
        weight.data = torch.empty(0)
    assert OutputLayer.of(model, 0, 0.5) == OutputLayer(1.0, None, 0.5, 0)
