"""Builds dialogues turn by turn; each answer is the best of K that follow the instruction (section 3.3)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..chat_format.encoding import chat_format, encode_prompt
from ..console import say
from ..data.ghost_attention import instruction_on_every_turn
from ..data.instructions import Instruction
from ..data.rows import Dialogue, Message
from ..model.reward_models import RewardModels
from ..sampling.interface import Sampler, Samples
from ..sampling.usable import is_usable
from .settings import GattSettings


@dataclass
class PartialDialogue:
    """A dialogue under construction: instruction, the user's messages of all turns, the messages so far."""

    instruction: Instruction
    user_messages: list[str]
    messages: list[Message] = field(default_factory=list)
    stopped: bool = field(default=False, kw_only=True)

    @property
    def turns(self) -> int:
        return len(self.messages) // 2

    @property
    def unfinished(self) -> bool:
        return not self.stopped and self.turns < len(self.user_messages)

    def next_prompt(self) -> list[Message]:
        """The messages to sample the next answer from, with the instruction on every user message."""
        user: Message = {"role": "user", "content": self.user_messages[self.turns]}
        dialogue = Dialogue([*self.messages, user], instruction=self.instruction.text)
        return instruction_on_every_turn(dialogue).messages

    def add_turn(self, answer: str) -> None:
        """Appends the next user message and its answer."""
        self.messages.append({"role": "user", "content": self.user_messages[self.turns]})
        self.messages.append({"role": "assistant", "content": answer})


class DialogueBuilder:
    """Builds all dialogues in parallel, turn by turn, with one model.

    Args:
        sampler: samples from a chat model.
        tokenizer: that of the model.
        context_length: maximum number of tokens of a prompt, its answer and an EOS, which reward models read:
            the smallest context of all models.
        reward_models: select among the answers that follow the instruction; None: the most probable one is
            selected.
        state: file with the finished turns, from which an interrupted run resumes.

    Attributes:
        samples, followed: number of sampled answers, and of those that follow their instruction, by its kind.
        out_of_context: number of dialogues that ended because the context was full.
    """

    def __init__(
        self,
        settings: GattSettings,
        sampler: Sampler,
        dialogues: Sequence[PartialDialogue],
        *,
        tokenizer: Any,
        context_length: int,
        reward_models: RewardModels | None,
        state: Path,
    ) -> None:
        self._settings, self._dialogues, self._state = settings, dialogues, state
        self._reward_models = reward_models
        self.samples: Counter[str] = Counter()
        self.followed: Counter[str] = Counter()
        self.out_of_context = self._finished_turns = 0
        self._sampler, self._tokenizer = sampler, tokenizer
        self._control_strings = chat_format(tokenizer).control_strings
        self._max_prompt_length = context_length - settings.max_new_tokens - 1
        self._resume()

    def build(self) -> None:
        """Samples all remaining turns."""
        for turn in range(self._finished_turns, self._settings.max_turns):
            prompts = self._prompts()
            self._sample_turn(turn, prompts)
            self._finished_turns = turn + 1
            self._save()

    def _prompts(self) -> dict[int, list[int]]:
        """Token ids to sample from, by dialogue; a dialogue whose prompt fills the context is stopped."""
        prompts = {}
        for row, dialogue in enumerate(self._dialogues):
            if dialogue.unfinished:
                ids = encode_prompt(self._tokenizer, dialogue.next_prompt())
                if len(ids) <= self._max_prompt_length:
                    prompts[row] = ids
                else:
                    dialogue.stopped = True
                    self.out_of_context += 1
        return prompts

    def _sample_turn(self, turn: int, prompts: dict[int, list[int]]) -> None:
        """Samples the next answer of the dialogues; a dialogue without an acceptable answer is stopped."""
        rows = list(prompts)
        samples = self._sampler.sample(
            list(prompts.values()),
            self._settings.max_new_tokens,
            self._settings.num_generations,
            temperature=self._settings.temperature,
            seed=f"{self._settings.full_seed}/{turn}",
            keys=rows,
            label=f"turn {turn + 1}",
        )
        best = self._best_answers(rows, samples, self._answer_values(list(prompts.values()), samples))
        for row in rows:
            if row in best:
                self._dialogues[row].add_turn(best[row])
            else:
                self._dialogues[row].stopped = True

    def _answer_values(self, prompts: Sequence[Sequence[int]], samples: Samples) -> list[float | None]:
        """The values by which answers are compared; None for an unsafe answer.

        With reward models the helpfulness score, else the mean log-probability per token in nats.
        """
        if self._reward_models is None:
            return [sum(logprobs) / len(logprobs) for logprobs in samples.logprobs]
        row_prompts = [prompts[index] for index in samples.prompts]
        scores = self._reward_models.score_answers(row_prompts, samples.contents, [False] * len(row_prompts))
        safe = scores.safety >= self._reward_models.safety_threshold
        return [
            value if is_safe else None
            for value, is_safe in zip(scores.helpfulness.tolist(), safe.tolist(), strict=True)
        ]

    def _best_answers(
        self, rows: Sequence[int], samples: Samples, values: Sequence[float | None]
    ) -> dict[int, str]:
        """The answer with the highest value by dialogue, among safe ones that follow the instruction."""
        best: dict[int, tuple[float, str]] = {}
        texts = map(self._tokenizer.decode, samples.contents)  # with special tokens: `is_usable` refuses them
        for index, text, value, finished in zip(
            samples.prompts, map(str.strip, texts), values, samples.finished, strict=True
        ):
            row, instruction = rows[index], self._dialogues[rows[index]].instruction
            self.samples[instruction.kind] += 1
            usable = is_usable(text, finished, self._control_strings)
            if not (usable and instruction.is_followed_by(text)):
                continue
            self.followed[instruction.kind] += 1
            if value is not None and (row not in best or value > best[row][0]):
                best[row] = (value, text)
        return {row: text for row, (_, text) in best.items()}

    def _save(self) -> None:
        self._state.parent.mkdir(exist_ok=True)
        state: dict[str, Any] = {
            "finished_turns": self._finished_turns,
            "out_of_context": self.out_of_context,
            "samples": self.samples,
            "followed": self.followed,
            "dialogues": [[dialogue.messages, dialogue.stopped] for dialogue in self._dialogues],
        }
        write_json(self._state, state)

    def _resume(self) -> None:
        if not self._state.is_file():
            return
        state = json.loads(self._state.read_text(encoding="utf-8"))
        self._finished_turns, self.out_of_context = state["finished_turns"], state["out_of_context"]
        self.samples, self.followed = Counter(state["samples"]), Counter(state["followed"])
        for dialogue, (messages, stopped) in zip(self._dialogues, state["dialogues"], strict=True):
            dialogue.messages, dialogue.stopped = messages, stopped
        say(f"resuming after turn {self._finished_turns}")
