"""A model under test in the interface of lm-eval (this module imports it).

Tokens, truncation and stop strings are those of lm-eval's `HFLM`, so figures are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from .model import TestedModel
from .scoring import Continuation

MAX_NEW_TOKENS = 256  # HFLM's, where a task has no limit of its own


class HarnessModel(TemplateLM):
    """Scores and samples with a `TestedModel`.

    lm-eval sees one process: all ranks make the same requests, and `TestedModel` shares them.

    Attributes:
        truncated: the prompts that lost their first tokens, because they exceed the context; once for all
            choices and for all tasks of the benchmark.
    """

    def __init__(self, model: TestedModel, label: str) -> None:
        super().__init__()
        self._tested, self._label = model, label
        self.tokenizer = model.tokenizer
        self.truncated: set[str] = set()

    @property
    def max_length(self) -> int:
        return self._tested.context

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return self._tested.prefix_token_id

    @property
    def tokenizer_name(self) -> str:
        return self._tested.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._tested.encode(string, add_special_tokens)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self._tested.dialogue(chat_history, answer=add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        rows = []
        for texts, context, continuation in requests:
            ids = [*context, *continuation][-(self.max_length + 1) :]
            if len(context) + len(continuation) > len(ids):
                self.truncated.add(texts[0])
            rows.append(Continuation(tuple(ids), len(continuation)))
        return self._tested.score(rows, self._label)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of each text, in windows of the context's length."""
        windows, owners = [], []
        for owner, request in enumerate(requests):
            found = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for window in map(make_disjoint_window, found):
                windows.append((None, *window))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[owner] += logprob
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy answers up to the first stop string of each request."""
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(index)
        for indices in groups.values():
            texts = self._generate(
                [requests[index].args[0] for index in indices], requests[indices[0]].args[1]
            )
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
        return answers

    def _generate(self, contexts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        options = normalize_gen_kwargs(dict(options), MAX_NEW_TOKENS)
        eos = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(options["until"], eos=eos)
        if options["do_sample"]:
            raise ValueError(f"{self._label}: samples at a temperature; expected a greedy task")
        prompts = []
        for context in contexts:
            ids = self.tok_encode(context)
            prompts.append(self._tested.fitted(ids, options["max_gen_toks"]))
            if len(prompts[-1]) < len(ids):
                self.truncated.add(context)
        sampled = self._tested.sample(
            prompts,
            options["max_gen_toks"],
            stop=lambda ids: any(term in self._tested.decode(ids) for term in until if term),
            label=self._label,
        )
        return [postprocess_generated_text(self._tested.decode(ids), until, None) for ids in sampled]
