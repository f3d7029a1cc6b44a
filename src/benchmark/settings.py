"""Settings of the stage `benchmark` (imports no torch)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ..data.settings import RowSettings
from ..sampling.settings import SamplingSettings
from ..settings import Precision, RankSettings, Settings, Source

Count = Annotated[int, Field(ge=1)]
TOXICITY, TRUTH, INFORMATION = "toxicity_classifier", "truth_judge", "information_judge"
"""Inputs with the models that judge answers in the paper's own measures."""


class HarnessTask(Settings):
    """A benchmark of lm-eval."""

    split: ClassVar[str] = "test"
    """of a folder, the split whose files are read; `train`: all files, if no name contains it"""

    path: str | None = None
    """path of the test rows below the input `data`, or absolute; null: lm-eval's own data set on the Hub"""
    limit: Count | None = None
    """maximum number of rows, of each subject or task where there are several; null: all"""

    def sources(self, name: str) -> list[Source]:
        """The rows that are read; `name` of the benchmark in `Tasks`."""
        return [] if self.path is None else [Source(path=self.path, format=name, split=self.split)]


class MmluTask(HarnessTask):
    """MMLU: rows {"question", "choices", "answer", "subject"}; the letter with the highest logprob counts."""

    few_shot_path: str | None = None
    """path of the worked examples, rows as in `path`; needed with `path` and `shots`"""
    shots: Annotated[int, Field(ge=0, le=5)] = 5
    """number of worked examples: the first ones of the question's subject"""

    @model_validator(mode="after")
    def _has_examples(self) -> MmluTask:
        if self.path is not None and self.shots and self.few_shot_path is None:
            raise ValueError(
                "few_shot_path: missing; set the file with the examples (dev split), or shots: 0"
            )
        if self.path is None and self.few_shot_path is not None:
            raise ValueError("few_shot_path: has no effect without `path`; set both, or none for the Hub")
        if not self.shots and self.few_shot_path is not None:
            raise ValueError("few_shot_path: has no effect with `shots: 0`; remove one of them")
        return self

    def sources(self, name: str) -> list[Source]:
        """The test rows and, after them, the worked examples."""
        examples = self.few_shot_path
        few_shot = [] if examples is None else [Source(path=examples, format=name, split="dev")]
        return super().sources(name) + few_shot


class Gsm8kTask(HarnessTask):
    """GSM8K: rows {"question", "answer"}; the number in a greedy answer counts."""

    shots: Annotated[int, Field(ge=0, le=8)] = 8
    """number of worked examples, of the eight of lm-eval's `gsm8k_cot`"""
    max_new_tokens: Count = 256
    """maximum number of tokens of an answer"""


class BbhTask(HarnessTask):
    """BIG-Bench Hard: files TASK.json with {"examples": [{"input", "target"}]}, or TASK.jsonl with rows."""

    split: ClassVar[str] = "train"  # one file per task, which have no splits
    shots: Annotated[int, Field(ge=0, le=3)] = 3
    """number of worked examples, of the three with reasoning of each task"""
    max_new_tokens: Count = 1024
    """maximum number of tokens of an answer"""


class HumanEvalTask(HarnessTask):
    """HumanEval: rows {"task_id", "prompt", "test", "entry_point"}; completions run in a sandbox."""

    max_new_tokens: Count = 1024
    """maximum number of tokens of a completion"""


class TruthfulQaTask(HarnessTask):
    """TruthfulQA as lm-eval measures it (mc1, mc2): rows {"question", "mc1_targets", "mc2_targets"}."""

    split: ClassVar[str] = "validation"


class ToxigenTask(HarnessTask):
    """ToxiGen's statements to classify: rows {"text", "toxicity_ai", "toxicity_human"}."""


class GenerationTask(Settings):
    """A measure of the paper on sampled answers (section 4.1 and appendix A.4.7)."""

    split: ClassVar[str] = "train"
    """split of a data set on the Hub; of a folder, see `HarnessTask.split`"""

    path: str
    """path of the prompts below the input `data`, absolute path, or id of a data set on the Hub"""
    limit: Count | None = None
    """maximum number of prompts, of each group of people where they have one; null: all"""
    temperature: Annotated[float, Field(ge=0)] = 0.1
    """sampling temperature; 0 is greedy"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """smallest total probability of the tokens that are sampled from; 1: all tokens"""
    max_new_tokens: Count = 64
    """maximum number of tokens of an answer, EOS included"""

    def sources(self, name: str) -> list[Source]:
        """The prompts that are read; `name` of the benchmark in `Tasks`."""
        return [Source(path=self.path, format=name, split=self.split)]


class TruthfulQaGenerationTask(GenerationTask):
    """Share of truthful and informative answers, by two judge models: rows {"question"}."""

    split: ClassVar[str] = "validation"


class ToxigenGenerationTask(GenerationTask):
    """Share of toxic answers by a classifier: rows {"prompt", "group"}."""

    toxic_label: str | None = None
    """name of the classifier's output for toxic text; null: the second of its two outputs"""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """probability from which an answer counts as toxic"""


class BoldTask(GenerationTask):
    """Mean sentiment of completed sentences by group: folder of files DOMAIN_prompt.json."""


class Tasks(Settings):
    """Benchmarks to run, those that score before those that sample; those that are null are skipped."""

    mmlu: MmluTask | None = None
    """MMLU, 5-shot in the paper (tables 3 and 4)"""
    truthfulqa: TruthfulQaTask | None = None
    """TruthfulQA's multiple choice, which the paper does not report"""
    toxigen: ToxigenTask | None = None
    """ToxiGen's statements to classify, which the paper does not report"""
    gsm8k: Gsm8kTask | None = None
    """GSM8K, 8-shot in the paper (tables 4 and 25)"""
    bbh: BbhTask | None = None
    """BIG-Bench Hard, 3-shot in the paper (table 3)"""
    humaneval: HumanEvalTask | None = None
    """HumanEval, pass@1 without examples (tables 4 and 21); needs a kernel with namespaces for the sandbox"""
    truthfulqa_generation: TruthfulQaGenerationTask | None = None
    """TruthfulQA as the paper reports it (tables 11 and 14)"""
    toxigen_generation: ToxigenGenerationTask | None = None
    """ToxiGen as the paper reports it (tables 11 and 14)"""
    bold: BoldTask | None = None
    """BOLD (appendix A.4.8)"""

    @model_validator(mode="after")
    def _at_least_one(self) -> Tasks:
        if not self.chosen():
            raise ValueError(f"no benchmark to run; set at least one of {', '.join(type(self).model_fields)}")
        return self

    def chosen(self) -> dict[str, HarnessTask | GenerationTask]:
        """The benchmarks to run, by name."""
        tasks = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: task for name, task in tasks.items() if task is not None}


class BenchmarkSettings(RowSettings, SamplingSettings, RankSettings):
    """Runs public benchmarks on base and chat models, through lm-eval and as the paper measures them."""

    required_inputs: ClassVar[frozenset[str]] = frozenset()
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"base", "sft", TOXICITY, TRUTH, INFORMATION})
    listed_inputs: ClassVar[frozenset[str]] = frozenset({"versions"})
    resumable: ClassVar[bool] = True

    tasks: Tasks
    """benchmarks to run"""
    chat_template: Literal["auto"] | bool = "auto"
    """whether prompts are written in the chat template, with worked examples as earlier turns; `auto`: for
    all models but the input `base`. HumanEval is always completed as plain text"""
    dtype: Precision = "float32"
    """precision of the weights for sampling and scoring"""

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        yield from super().all_sources()
        for name, task in self.tasks.chosen().items():
            for source in task.sources(name):
                yield "tasks", source

    def inputs_taken(self) -> tuple[frozenset[str], frozenset[str]]:
        """`data` if a benchmark has a path, and the judges of the benchmarks."""
        tasks = self.tasks
        required = {"data"} if any(self.all_sources()) else set()
        optional = {"base", "sft"}
        optional |= {TOXICITY} if tasks.toxigen_generation is not None else set()
        optional |= {TRUTH, INFORMATION} if tasks.truthfulqa_generation is not None else set()
        return frozenset(required), frozenset(optional)
