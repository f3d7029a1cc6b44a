"""The benchmarks of lm-eval: its own tasks over data of the Hub or over local rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.intake import Intake
from ..distributed.group import once
from ..errors import DataError, LlamitaError
from .harness import lm_eval
from .rows import Row, by_subtask, read_rows
from .settings import HarnessTask, MmluTask

OWN = Path(__file__).parent  # has humaneval.yaml
PREFIXES = {"mmlu": "mmlu_", "bbh": "bbh_cot_fewshot_"}
"""Benchmarks of several tasks, with the beginning of their names in lm-eval."""
NAMES = {
    "gsm8k": ("gsm8k_cot",),
    "humaneval": ("humaneval",),
    "truthfulqa": ("truthfulqa_mc1", "truthfulqa_mc2"),
    "toxigen": ("toxigen",),
}
"""Names of the other benchmarks' tasks in lm-eval."""
FOLDERS = {
    "mmlu": "mmlu/default",
    "gsm8k": "gsm8k",
    "bbh": "bbh/cot_fewshot",
    "truthfulqa": "truthfulqa",
    "toxigen": "toxigen",
}
SPLITS = {"truthfulqa": "validation"}


class Benchmark:
    """A benchmark of lm-eval, ready to run on models.

    Attributes:
        name: name in `Tasks`.
        settings: its settings.
        source: path of its local rows, or the id of its data set on the Hub.
        tasks: lm-eval's tasks by name.
    """

    def __init__(self, name: str, settings: HarnessTask, data: Path, *, intake: Intake) -> None:
        self.name, self.settings = name, settings
        self._manager = _task_manager(name)
        specs = self._hub_specs() if settings.path is None else self._local_specs(data, intake)
        self.tasks = self._load(specs)
        self.source = settings.path or next(iter(self.tasks.values())).config.dataset_path
        for task in self.tasks.values():
            if (limit := getattr(settings, "max_new_tokens", None)) is not None:
                task.set_config("generation_kwargs", {"max_gen_toks": limit}, update=True)

    @property
    def subtasks(self) -> list[str]:
        """Names of lm-eval's subjects of MMLU or tasks of BIG-Bench Hard, without their prefix."""
        prefix = PREFIXES[self.name]
        return [name.removeprefix(prefix) for name in self._manager.all_subtasks if name.startswith(prefix)]

    def title(self, task: str) -> str:
        """Name of a task of lm-eval without the benchmark's prefix."""
        return task.removeprefix(PREFIXES.get(self.name, ""))

    def _hub_specs(self) -> list[dict[str, Any]]:
        names = NAMES.get(self.name) or [PREFIXES[self.name] + subtask for subtask in self.subtasks]
        return [{"task": name, **self._shots()} for name in names]

    def _local_specs(self, data: Path, intake: Intake) -> list[dict[str, Any]]:
        settings, split = self.settings, SPLITS.get(self.name, "test")
        known = self.subtasks if self.name in PREFIXES else ()
        source, *few_shot = settings.sources(self.name)
        rows = read_rows(source, data, intake=intake, subtasks=known)
        if self.name not in PREFIXES:
            return [self._spec(name, {split: rows}) for name in NAMES[self.name]]
        examples: dict[str, list[Row]] = {}
        if few_shot:
            examples = by_subtask(read_rows(few_shot[0], data, intake=intake, subtasks=known))
        specs = []
        for subtask, group in by_subtask(rows).items():
            splits = {split: group}
            if isinstance(settings, MmluTask):
                found = examples.get(subtask, [])
                if len(found) < settings.shots:
                    raise DataError(
                        f"{settings.few_shot_path}: {len(found)} examples of the subject {subtask}; expected "
                        f"at least {settings.shots} (tasks.mmlu.shots)"
                    )
                splits["dev"] = found or group[:1]  # lm-eval needs the split also for no shots
            specs.append(self._spec(PREFIXES[self.name] + subtask, splits))
        return specs

    def _spec(self, name: str, splits: Mapping[str, list[Row]]) -> dict[str, Any]:
        """A task of lm-eval over these rows in place of its own data set."""
        import datasets

        def rows(**_: Any) -> Any:
            return datasets.DatasetDict(
                {split: datasets.Dataset.from_list(some) for split, some in splits.items()}
            )

        # otherwise ToxiGen's task would look for examples that it does not use
        unused = {"training_split": None} if self.name == "toxigen" else {}
        return {"task": name, "custom_dataset": rows, **unused, **self._shots()}

    def _shots(self) -> dict[str, int]:
        shots = getattr(self.settings, "shots", None)
        return {} if shots is None else {"num_fewshot": shots}

    def _load(self, specs: list[dict[str, Any]]) -> dict[str, Any]:
        """Builds the tasks; data sets of the Hub are downloaded by rank 0, then all ranks open them."""
        loaded: dict[str, Any] = {}

        def load() -> None:
            # members of a group are lm-eval's own tasks with changes; a task alone would be a new one
            loaded.update(self._manager.load([{"group": self.name, "task": specs}])["tasks"])

        try:
            once(f"loading {self.name}", load)
            if not loaded:
                load()
        except LlamitaError:
            raise
        except Exception as error:  # the errors of `datasets` and of lm-eval have no common base class
            raise DataError(
                f"tasks.{self.name}: lm-eval can't load its data set ({type(error).__name__}: {error}); "
                f"without a network set tasks.{self.name}.path to a local file"
            ) from None
        return loaded


def _task_manager(name: str) -> Any:
    """lm-eval's index of the tasks of one benchmark."""
    harness = lm_eval()
    from lm_eval.tasks import TaskManager

    own = Path(str(harness.__file__)).parent / "tasks"
    folder = own / FOLDERS[name] if name in FOLDERS else OWN
    return TaskManager(include_path=str(folder), include_defaults=False)
