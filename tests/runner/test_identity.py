"""A stage's identity includes exactly the files that it opens below its inputs or through its settings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamita import hashes
from llamita.errors import DataError
from llamita.prepare.settings import PrepareSettings
from llamita.prepare.stage import run as make_corpus
from llamita.runner import execution, stages
from llamita.runner.identity import StageRun, Status, identity, input_hashes, status
from llamita.settings import StageSettings
from llamita.world.settings import WorldSettings
from llamita.world.stage import run as make_world

from ..helpers.material import HELPFULNESS, PRETRAIN, SAFETY, SFT, write_data
from ..helpers.rows import turn, write
from ..helpers.sources import source_setting
from ..helpers.tiny import save_tiny_model, save_tiny_reward_model

_watched: list[set[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _watched[-1].add(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_audit)  # stays active: a hook cannot be removed


@contextmanager
def opened_below(*roots: Path) -> Iterator[set[Path]]:
    """Collects the files below some folders that are opened meanwhile, with links resolved."""
    paths: set[str] = set()
    found: set[Path] = set()
    _watched.append(paths)
    try:
        yield found
    finally:
        _watched.pop()
        real = [root.resolve() for root in roots]
        files = {Path(path) for path in paths if Path(path).is_file()}
        found |= {path for path in files if any(path.is_relative_to(root) for root in real)}


ONE_STEP = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
DIALOGUES = source_setting("dialogues", "messages")
PROMPTS = source_setting("prompts", "prompts")
SIZES = dict.fromkeys(
    (name for name in WorldSettings.model_fields if name not in StageSettings.model_fields), 6
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    """Inputs of every stage, with files that no stage reads; some data is elsewhere or behind a link."""
    root = tmp_path_factory.mktemp("inputs")
    data = write_data(root / "data")
    write(
        data / "prompts.jsonl",
        [{"messages": turn(f"what is {n} ?"), "is_safety": n == "a"} for n in "abcdefgh"],
    )
    (root / "elsewhere").mkdir()
    for name in ("gatt", "documents"):
        (data / f"{name}.jsonl").rename(root / "elsewhere" / f"{name}.jsonl")
        (data / f"{name}.jsonl").symlink_to(root / "elsewhere" / f"{name}.jsonl")
    (root / "elsewhere" / "validation.jsonl").write_bytes((data / "validation.jsonl").read_bytes())
    world = root / "world"
    world.mkdir()
    make_world(WorldSettings(**SIZES | {"test_turns": 2}), {}, world)
    models = {"model": 0, "base": 0, "sft": 1}
    folders = {
        name: save_tiny_model(root / name / "model", tokenizer, seed, max_position_embeddings=1024).parent
        for name, seed in models.items()
    }
    for name in ("helpfulness", "safety"):
        folders[name] = save_tiny_reward_model(root / name, tokenizer)
    distilled = root / "distilled"
    write(distilled / "distilled.jsonl", [{"messages": turn("how ?", "no")}])
    for folder in (data, world, distilled, *folders.values()):
        (folder / "notes.md").write_text("of no use")
    write(data / "labelled.jsonl", [{"answer": f"{n}", "refusal": n % 2 == 0} for n in range(24)])
    write(data / "gsm8k.jsonl", [{"question": f"what is {n} ?", "answer": f"#### {n}"} for n in range(2)])
    earlier = root / "earlier"
    write(earlier / "prompts.jsonl", [{"pool": 0, "messages": turn("what is a ?"), "is_safety": False}])
    write(earlier / "selection.jsonl", [{"messages": turn("what is a ?", "it is red")}])
    for name, versions in (("pretrain", {}), ("other", {})):
        (root / name).mkdir()
        manifest = {"stage": name, "name": name, "settings": {}, "metrics": versions, "wall_seconds": 1}
        (root / name / "manifest.json").write_text(json.dumps(manifest))
        write(root / name / "metrics.jsonl", [])
    corpus = root / "corpus"
    corpus.mkdir()
    chosen = {"documents": source_setting("documents", "text_rows"), "validation_share": 0.1}
    make_corpus(PrepareSettings.model_validate(chosen), {"data": data, "tokenizer": folders["model"]}, corpus)
    write(
        root / "benchmark" / "versions" / "sft" / "mmlu" / "questions.jsonl",
        [{"id": "0", "text": "what is a ?", "score": 1}],
    )
    return {
        **folders,
        "corpus": corpus,
        "benchmark": root / "benchmark",
        "data": data,
        "world": world,
        "distilled": distilled,
        "tokenizer": folders["model"],
        "elsewhere": root / "elsewhere",
        "pretrain": root / "pretrain",
        "earlier": earlier,
        "other": root / "other",
    }


def stage_run_of(kind: str, chosen: dict[str, Any], inputs: dict[str, Path], **named: str) -> StageRun:
    settings = stages.settings_class(kind).model_validate_json(json.dumps(chosen))
    folders = {name: inputs[of] for name, of in named.items()}
    return StageRun(kind, settings, folders, inputs["data"].parent / "out" / kind)


def stage_runs(inputs: dict[str, Path]) -> dict[str, StageRun]:
    elsewhere = [{"path": str(inputs["elsewhere"] / "validation.jsonl"), "format": "text_rows"}]
    documents = {"documents": source_setting("documents", "text_rows")}
    corpus = documents | {"validation": elsewhere, "deduplicate": False}
    instructed = {"trained": "test/gatt.jsonl", "unseen": "test/gatt_unseen.jsonl", "turns": 1}
    test = [{"path": "test/ordinary.jsonl", "format": "prompts"}]
    shared = {"prompts": PROMPTS, "max_new_tokens": 4}
    rejection = {
        **shared,
        "dialogues": DIALOGUES,
        "ghost_attention": SFT["ghost_attention"],
        "prompts_per_round": 2,
        "num_generations": 1,
        "max_length": 104,
        "trainer": ONE_STEP,
    }
    ppo = shared | {"iterations": 1, "episodes": 2, "mini_batch_size": 2}
    judges = {name: name for name in ("helpfulness", "safety")}
    evaluate = {
        "gold": True,
        "prompts": {"ordinary": test},
        "max_new_tokens": 4,
        "retention": instructed | {"dialogues": 2, "unseen_dialogues": 2},
    }
    red_team = shared | {
        "judge": {"by": "safety"},
        "mutations": {"instructions": {"logic": "{prompt}"}, "max_new_tokens": 4},
    }
    gold = {"prompts": test, "max_new_tokens": 4, "judge": {"by": "rules", "gold": True}}
    benchmark = {"tasks": {"gsm8k": {"path": "gsm8k.jsonl", "shots": 0, "max_new_tokens": 4}}}
    gatt = {"prompts": PROMPTS, "instructions": ["word"], "dialogues": 1, "max_new_tokens": 4, "max_turns": 2}
    tuned = SFT | {"trainer": ONE_STEP}
    labelled = {"answers": source_setting("labelled", "labelled_answers"), "held_out": 8}
    distilled = {"distillation": source_setting("distilled", "messages")}
    distillation = {
        "prompts": PROMPTS,
        "preprompts": {"templates": ["be {adjective} ."], "adjectives": ["kind"]},
        "max_new_tokens": 4,
    }
    searched = {
        "samples": [{"benchmark": "prompts", "path": "prompts.jsonl", "format": "prompts"}],
        "rows": DIALOGUES,
    }
    return {
        "tokenizer": stage_run_of("tokenizer", documents | {"vocab_size": 400}, inputs, data="data"),
        "prepare": stage_run_of("prepare", corpus, inputs, data="data", tokenizer="tokenizer"),
        "pretrain": stage_run_of(
            "pretrain", PRETRAIN | corpus | {"trainer": ONE_STEP}, inputs, data="data", tokenizer="tokenizer"
        ),
        "gatt": stage_run_of("gatt", gatt, inputs, data="data", model="model"),
        "distillation": stage_run_of(
            "distillation", distillation, inputs, data="data", model="model", safety="safety"
        ),
        "sft": stage_run_of("sft", tuned, inputs, data="data", model="model"),
        "sft_gatt": stage_run_of("sft", tuned, inputs, data="data", model="model", gatt="data"),
        "sft_distilled": stage_run_of(
            "sft", tuned | distilled, inputs, data="data", model="model", distillation="distilled"
        ),
        "reward": stage_run_of(
            "reward", HELPFULNESS | {"trainer": ONE_STEP}, inputs, data="data", model="sft"
        ),
        "safety": stage_run_of("reward", SAFETY | {"trainer": ONE_STEP}, inputs, data="data", model="sft"),
        "refusal_classifier": stage_run_of("refusal_classifier", labelled, inputs, data="data"),
        "rejection": stage_run_of(
            "rejection",
            rejection,
            inputs,
            data="data",
            base="base",
            model="sft",
            **judges,
            **{"selections.v0/rejection": "earlier"},
        ),
        "ppo": stage_run_of("ppo", ppo, inputs, data="data", start="sft", **judges),
        "evaluate": stage_run_of(
            "evaluate", evaluate, inputs, data="world", sft="sft", **{"versions.v1/rejection": "base"}
        ),
        "red_team": stage_run_of(
            "red_team",
            red_team,
            inputs,
            data="data",
            attacker="model",
            safety="safety",
            **{"versions.v1": "base"},
        ),
        "red_team_gold": stage_run_of("red_team", gold, inputs, data="world", **{"versions.v1": "base"}),
        "benchmark": stage_run_of("benchmark", benchmark, inputs, data="data", base="base", sft="sft"),
        "contamination": stage_run_of(
            "contamination",
            searched,
            inputs,
            data="data",
            tokenizer="tokenizer",
            corpus="corpus",
            **{"benchmarks.benchmark": "benchmark"},
        ),
        "report": stage_run_of("report", {}, inputs, pretrain="pretrain", other="other"),
    }


NAMES = (
    "tokenizer prepare pretrain gatt distillation sft sft_gatt sft_distilled reward refusal_classifier "
    "rejection ppo evaluate red_team red_team_gold benchmark contamination report"
).split()
SAMPLED = ("gatt", "distillation")  # select among the answers of a model whose weights are random


@pytest.mark.parametrize("name", NAMES)
def test_the_files_opened_are_those_hashed(
    inputs: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    stage_run = stage_runs(inputs)[name]
    everything = inputs["data"].parent
    with opened_below(everything) as hashed:
        input_hashes(stage_run)
    with opened_below(everything) as opened, suppress(DataError if name in SAMPLED else ()):
        stages.stage_function(stage_run.kind)(stage_run.settings, stage_run.inputs, tmp_path)
    of_data = ("data", "gatt", "distillation", "pretrain")
    models = [path.resolve() for key, path in stage_run.inputs.items() if key not in of_data]
    models = [path for path in models if path.name != "other"]
    of_models = {path for path in hashed if any(path.is_relative_to(model) for model in models)}
    assert opened <= hashed
    # libraries in Rust open weights and tokenizers without an audit event
    assert hashed - opened <= of_models
    assert hashed
    assert not any(path.name == "notes.md" for path in hashed)


def test_every_kind_of_stage_is_compared(inputs: dict[str, Path]) -> None:
    without = {"world"}
    assert {stage_run.kind for stage_run in stage_runs(inputs).values()} | without == set(stages.REGISTRY)


def changed(inputs: dict[str, Path], path: Path, text: bytes) -> set[str]:
    """The stages that would rerun after something is added to a file."""
    before = {name: input_hashes(stage_run) for name, stage_run in stage_runs(inputs).items()}
    old = path.read_bytes() if path.exists() else None
    path.write_bytes((old or b"") + text)
    after = {name: input_hashes(stage_run) for name, stage_run in stage_runs(inputs).items()}
    if old is None:
        path.unlink()
    else:
        path.write_bytes(old)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("place", "name", "rerun"),
    [
        ("data", "notes.md", set()),
        ("data", "dialogues.jsonl", {"sft", "sft_gatt", "sft_distilled", "rejection", "contamination"}),
        ("distilled", "distilled.jsonl", {"sft_distilled"}),
        ("data", "helpfulness.jsonl", {"reward", "safety"}),
        ("data", "labelled.jsonl", {"refusal_classifier"}),
        ("elsewhere", "validation.jsonl", {"prepare", "pretrain"}),  # given by an absolute path
        ("elsewhere", "documents.jsonl", {"tokenizer", "prepare", "pretrain"}),  # behind a link
        ("elsewhere", "gatt.jsonl", {"sft", "sft_gatt", "sft_distilled", "rejection"}),
        ("data", "prompts.jsonl", {"gatt", "distillation", "rejection", "ppo", "red_team", "contamination"}),
        ("earlier", "selection.jsonl", {"rejection"}),
        ("base", "model/config.json", {"rejection", "evaluate", "red_team", "red_team_gold", "benchmark"}),
        ("data", "gsm8k.jsonl", {"benchmark"}),
        ("world", "truth.json", {"evaluate", "red_team_gold"}),
        ("world", "test/gatt_unseen.jsonl", {"evaluate"}),
        ("world", "test/harmful.jsonl", set()),
        ("sft", "notes.md", set()),
        ("sft", "model/config.json", {"reward", "safety", "rejection", "ppo", "evaluate", "benchmark"}),
        ("benchmark", "versions/sft/mmlu/questions.jsonl", {"contamination"}),
        ("corpus", "train/000/index.json", {"contamination"}),
        ("other", "metrics.jsonl", {"report"}),
    ],
)
def test_stages_that_rerun(inputs: dict[str, Path], place: str, name: str, rerun: set[str]) -> None:
    assert changed(inputs, inputs[place] / name, b"\n") == rerun


def test_a_changed_absolute_source_reruns_its_stage(inputs: dict[str, Path], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    write(rows, [{"text": "one"}])
    chosen = {"vocab_size": 400, "documents": [{"path": str(rows), "format": "text_rows"}]}
    settings = stages.settings_class("tokenizer").model_validate_json(json.dumps(chosen))
    stage_run = StageRun("tokenizer", settings, {"data": inputs["data"]}, tmp_path / "tokenizer")
    execution.execute(stage_run)
    assert status(stage_run).done
    write(rows, [{"text": "two"}])
    assert status(stage_run).reason == "changed: contents of input data"


def test_a_stage_stays_finished_on_another_number_of_ranks(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was trained on eight GPUs is not trained again where one GPU continues the pipeline."""

    def published(trainer: dict[str, Any]) -> StageRun:
        stage_run = stage_run_of("sft", SFT | {"trainer": trainer}, inputs, data="data", model="model")
        fingerprint = identity(stage_run, input_hashes(stage_run)).fingerprint
        manifest = {"stage": "sft", "fingerprint": fingerprint, "processes": 8}
        final = tmp_path / str(len(trainer))
        final.mkdir()
        (final / "manifest.json").write_text(json.dumps(manifest))
        return replace(stage_run, final=final)

    stage_run = published({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2})
    assert status(stage_run) == Status(True, "finished (64 rows per step on 8 ranks; 8 on 1)")
    assert status(replace(stage_run, processes=8)) == Status(True, "finished")
    assert status(published({})) == Status(True, "finished")  # 64 rows on any number of ranks
    more_rows = stage_run_of(
        "sft", SFT | {"trainer": {"per_device_train_batch_size": 32}}, inputs, data="data", model="model"
    )
    same_step = replace(more_rows, final=stage_run.final)
    assert status(replace(same_step, processes=2)) == Status(True, "finished")  # as it was resumed
    for processes in (1, 3, 8):
        assert not status(replace(same_step, processes=processes)).done
    invalid = more_rows.settings.model_copy(update={"trainer": {"per_device_train_batch_size": "32"}})
    assert not status(replace(same_step, settings=invalid)).done  # the trainer's class reports it
    monkeypatch.setenv("WORLD_SIZE", "8")  # one of the ranks, which a launcher started
    assert status(stage_run) == Status(True, "finished")


def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_is_not(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.bin").write_text("one")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "shards").symlink_to(tmp_path / "weights")
    (tmp_path / "weights" / "up").symlink_to(tmp_path / "corpus")
    before = hashes.input_hash(tmp_path / "corpus")
    (tmp_path / "weights" / "a.bin").write_text("two")
    assert hashes.input_hash(tmp_path / "corpus") != before
