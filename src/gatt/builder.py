"""Dialogues that grow turn by turn, each answer the best of K that keep the instruction (section 3.3)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifact import write_json
from ..batches import batches
from ..chat_format.encoding import chat_format, encode_prompt, remove_control_strings
from ..console import say, track
from ..data.ghost_attention import instruction_on_every_turn
from ..data.instructions import Instruction
from ..data.rows import Dialogue, Message
from ..distributed.device import device
from ..model.architecture import context_of
from ..model.checkpoint import load_causal_lm, load_tokenizer
from ..model.reward_models import RewardModels
from ..sampling.generate import sampler_for
from ..sampling.sampler import Samples
from .settings import GattSettings


@dataclass
class PartialDialogue:
    """A dialogue being built: its instruction, the questions that the user will ask, the messages so far."""

    instruction: Instruction
    questions: list[str]
    messages: list[Message] = field(default_factory=list)
    stopped: bool = field(default=False, kw_only=True)

    @property
    def turns(self) -> int:
        return len(self.messages) // 2

    @property
    def goes_on(self) -> bool:
        return not self.stopped and self.turns < len(self.questions)

    def asking(self) -> list[Message]:
        """The messages to sample from: the instruction on every one of the user's."""
        asked: list[Message] = [*self.messages, {"role": "user", "content": self.questions[self.turns]}]
        return instruction_on_every_turn(Dialogue(asked, instruction=self.instruction.text)).messages

    def grow(self, answer: str) -> None:
        """Adds the next question and its answer."""
        self.messages.append({"role": "user", "content": self.questions[self.turns]})
        self.messages.append({"role": "assistant", "content": answer})


class DialogueBuilder:
    """Builds all dialogues turn by turn, side by side, with one model.

    Args:
        model: folder of a chat model.
        reward_models: choose among the answers that keep the instruction; None: the likeliest stays.
        state: a file that a killed run goes on from, behind the last whole turn.

    Attributes:
        samples, kept: answers sampled, and those that kept their instruction, by its kind.
        outgrown: dialogues that ended because the model's context was full.
    """

    def __init__(
        self,
        settings: GattSettings,
        model: Path,
        dialogues: Sequence[PartialDialogue],
        *,
        reward_models: RewardModels | None,
        state: Path,
    ) -> None:
        self._settings, self._dialogues, self._state = settings, dialogues, state
        self._reward_models = reward_models
        self.samples: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.outgrown = self._done = 0
        self._tokenizer = load_tokenizer(model)
        self._marks = chat_format(self._tokenizer).control_strings
        loaded = load_causal_lm(model, settings.dtype).to(device()).eval()
        self._sampler = sampler_for(loaded, settings.sampling_batch_size)
        self._room = context_of(loaded.config) - settings.max_new_tokens
        self._resume()

    def finish(self) -> None:
        """Grows the dialogues to their ends."""
        for turn in range(self._done, self._settings.max_turns):
            prompts = self._prompts()
            rows = list(prompts)
            size = max(1, self._settings.sampling_batch_size // self._settings.num_generations)
            for part in track(
                batches(rows, size), f"turn {turn + 1}", len(rows), unit="dialogues", amount=len
            ):
                self._answer(turn, {row: prompts[row] for row in part})
            self._done = turn + 1
            self._save()

    def _prompts(self) -> dict[int, list[int]]:
        """Token ids to sample from, of each dialogue that goes on; one that fills the context stops."""
        prompts = {}
        for row, one in enumerate(self._dialogues):
            if one.goes_on:
                ids = encode_prompt(self._tokenizer, one.asking())
                if len(ids) <= self._room:
                    prompts[row] = ids
                else:
                    one.stopped = True
                    self.outgrown += 1
        return prompts

    def _answer(self, turn: int, prompts: dict[int, list[int]]) -> None:
        """Samples answers to some of the dialogues; one of which none keeps the instruction stops."""
        rows = list(prompts)
        samples = self._sampler.sample(
            list(prompts.values()),
            self._settings.max_new_tokens,
            self._settings.num_generations,
            temperature=self._settings.temperature,
            seed=f"{self._settings.draws}/{turn}",
            keys=rows,
        )
        best = self._best(rows, samples, self._worth(list(prompts.values()), samples))
        for row in rows:
            if row in best:
                self._dialogues[row].grow(best[row])
            else:
                self._dialogues[row].stopped = True

    def _worth(self, prompts: Sequence[Sequence[int]], samples: Samples) -> list[float | None]:
        """Of each answer its helpfulness score, None if it is unsafe; without reward models its likelihood.

        The likelihood is the mean over its tokens, in nats.
        """
        if self._reward_models is None:
            return [sum(logprobs) / len(logprobs) for logprobs in samples.logprobs]
        asked = [prompts[place] for place in samples.prompts]
        judged = self._reward_models.score_answers(asked, samples.contents, [False] * len(asked))
        safe = judged.safety >= self._reward_models.safety_threshold
        return [
            value if is_safe else None
            for value, is_safe in zip(judged.helpfulness.tolist(), safe.tolist(), strict=True)
        ]

    def _best(self, rows: Sequence[int], samples: Samples, worth: Sequence[float | None]) -> dict[int, str]:
        """Of each row the answer that is worth most, among those that keep the instruction and are safe."""
        best: dict[int, tuple[float, str]] = {}
        texts = [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in samples.answer_ids]
        for place, text, value, finished in zip(
            samples.prompts, map(str.strip, texts), worth, samples.finished, strict=True
        ):
            row, instruction = rows[place], self._dialogues[rows[place]].instruction
            self.samples[instruction.kind] += 1
            if (
                not finished
                or remove_control_strings(text, self._marks) != text
                or not instruction.is_followed_by(text)
            ):
                continue
            self.kept[instruction.kind] += 1
            if value is not None and (row not in best or value > best[row][0]):
                best[row] = (value, text)
        return {row: text for row, (_, text) in best.items()}

    def _save(self) -> None:
        self._state.parent.mkdir(exist_ok=True)
        state: dict[str, Any] = {
            "done": self._done,
            "outgrown": self.outgrown,
            "samples": self.samples,
            "kept": self.kept,
            "dialogues": [[one.messages, one.stopped] for one in self._dialogues],
        }
        write_json(self._state, state)

    def _resume(self) -> None:
        if not self._state.is_file():
            return
        state = json.loads(self._state.read_text(encoding="utf-8"))
        self._done, self.outgrown = state["done"], state["outgrown"]
        self.samples, self.kept = Counter(state["samples"]), Counter(state["kept"])
        for one, (messages, stopped) in zip(self._dialogues, state["dialogues"], strict=True):
            one.messages, one.stopped = messages, stopped
        say(f"going on behind turn {self._done}")
