"""The command line: fast help, one clear message for every error, exit codes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llamita import __version__, artifact, cli, processes
from llamita.errors import DataError
from llamita.runner import stages

from .helpers.text_stages import FakeStages
from .helpers.waiting import wait_until

BLOCK = """\
name: tiny
stages:
  - {name: base, stage: maker}
  - rounds: [v1, v2]
    previous: base
    stages:
      - {name: tune, stage: tuner, config: polite.yaml, inputs: {model: previous}}
"""


def llamita(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def output(result: Result) -> str:
    """Standard output and error together, unwrapped."""
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture
def project(fake: FakeStages, tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(
        "name: tiny\nstages:\n"
        "  - {name: base, stage: maker, config: maker.yaml}\n"
        "  - {name: chat, stage: taker, config: taker.yaml, inputs: {model: base}}\n"
    )
    (tmp_path / "maker.yaml").write_text("words: 3\n")
    (tmp_path / "taker.yaml").write_text("style: plain\n")
    return tmp_path


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys, llamita.cli\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'deepspeed', 'wandb', 'matplotlib', 'numpy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_and_version() -> None:
    result = llamita("--help")
    assert result.exit_code == 0
    for command in (
        "init",
        "run",
        "validate",
        "show",
        *cli.STAGE_HELP,
        "chat",
        "compare",
        "report",
        "schema",
    ):
        assert f" {command} " in result.stdout
        assert llamita(command, "--help").exit_code == 0
    sections = [line for line in result.stdout.splitlines() if line.endswith(":")]
    assert sections == ["Options:", "Start:", "Stages, run alone:", "Use:"]
    assert result.stdout.index(" validate ") < result.stdout.index("Stages, run alone:")
    assert llamita("--version").stdout == f"llamita {__version__}\n"
    assert set(cli.STAGE_HELP) == set(stages.REGISTRY) - {"report"}


def test_run(project: Path, fake: FakeStages) -> None:
    assert llamita("run", "pipeline.yaml", "--until", "base").exit_code == 0
    assert fake.ran == ["base"]
    dry = llamita("run", "pipeline.yaml", "--dry-run", "chat.style=polite", "name=other")
    assert dry.exit_code == 0
    assert 'style: "polite"' in dry.stdout
    assert "base: first run" in dry.stdout
    assert fake.ran == ["base"]
    result = llamita("run", "pipeline.yaml")
    assert result.exit_code == 0
    assert "[1/2] base: skipped, already finished" in result.stdout
    assert fake.ran == ["base", "chat"]


def test_trainer_sections_are_checked_before_work_in_a_dry_run_too(project: Path, fake: FakeStages) -> None:
    (project / "maker.yaml").write_text("trainer: {learning_rat: 1}\n")
    for arguments in ((), ("--dry-run",)):
        result = llamita("run", "pipeline.yaml", *arguments)
        assert result.exit_code == 2
        assert "maker.yaml:1: trainer.learning_rat" in result.stderr
    assert fake.ran == []


def test_a_stage_alone(project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stages.REGISTRY, "sft", stages.REGISTRY["taker"])
    (project / "text.txt").write_text("given")
    alone = ("sft", "taker.yaml", "inputs.model=text.txt", "output=out/mine", "style=polite", "seed=4")
    result = llamita(*alone)
    assert result.exit_code == 0, output(result)
    assert "polite\ngiven" in (project / "out/mine/made.txt").read_text()
    assert artifact.read_manifest(project / "out/mine")["settings"] == {"seed": 4, "style": "polite"}
    assert "already finished" in llamita(*alone).stdout
    assert fake.ran == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["output=o"], "inputs.model: stage 'sft' needs this input"),
        (["inputs.modl=text.txt", "output=o"], "no such input; did you mean 'model'"),
        (["inputs.model=text.txt"], "pass output=FOLDER"),
        (["inputs.model=nowhere", "output=o"], "no such folder"),
        (["inputs.model=text.txt", "output=o", "sytle=x"], "override 'sytle=x'"),
    ],
)
def test_a_stage_alone_with_wrong_settings(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setitem(stages.REGISTRY, "sft", stages.REGISTRY["taker"])
    (project / "text.txt").write_text("given")
    result = llamita("sft", "taker.yaml", *arguments)
    assert result.exit_code == 2
    assert words in output(result)


def test_validate(project: Path) -> None:
    result = llamita("validate", "pipeline.yaml", "maker.yaml", "taker.yaml")
    assert result.exit_code == 0, output(result)
    assert result.stdout.splitlines() == ["pipeline.yaml: ok", "maker.yaml: ok", "taker.yaml: ok"]
    (project / "polite.yaml").write_text("style: warm\n")  # no kind in its name: the pipeline has it
    pipeline = (project / "pipeline.yaml").read_text()
    (project / "pipeline.yaml").write_text(pipeline.replace("config: taker.yaml", "config: polite.yaml"))
    assert llamita("validate", "polite.yaml").stdout == "polite.yaml: ok\n"
    (project / "mine.yaml").write_text("trainer: {max_steps: x}\n")
    assert "add --stage KIND, one of" in output(llamita("validate", "mine.yaml"))
    result = llamita("validate", "mine.yaml", "--stage", "maker")
    assert result.exit_code == 2
    assert "mine.yaml:1: trainer.max_steps" in result.stderr


def test_validate_needs_no_roots(project: Path) -> None:
    pipeline = (project / "pipeline.yaml").read_text()
    (project / "pipeline.yaml").write_text(
        pipeline.replace("{model: base}", "{model: base, data: data}") + "roots: {data: null}\n"
    )
    assert llamita("validate", "pipeline.yaml").exit_code == 0
    assert "add roots.data=FOLDER" in output(llamita("run", "pipeline.yaml"))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            DataError("rows.jsonl:3: no answer; expected one"),
            1,
            "error: rows.jsonl:3: no answer; expected one",
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            "ZeroDivisionError: division by zero (unexpected error; add --debug",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.txt"), 1, "error: No such file: x.txt"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "no space left on the disk: stage 'base'"),
        (
            KeyboardInterrupt(),
            130,
            "error: Interrupted. Finished stages are kept; run the same command to resume.",
        ),
    ],
)
def test_errors_are_one_message_and_a_code(
    project: Path, fake: FakeStages, error: BaseException, code: int, words: str
) -> None:
    def fail(out: Path) -> None:
        raise error

    fake.during["base"] = fail
    result = llamita("run", "pipeline.yaml")
    assert result.exit_code == code
    assert words in output(result)
    assert "Traceback" not in output(result)
    if isinstance(error, Exception):
        debug = llamita("--debug", "run", "pipeline.yaml")
        assert debug.exit_code == code
        assert "Traceback" in debug.stderr
        assert words in output(debug)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "x.yaml", "--untl", "y"],
        ["sftt"],
        ["run", "nothing.yaml"],
        ["run", "pipeline.yaml", "seed"],
    ],
)
def test_wrong_usage_is_code_2(project: Path, arguments: list[str]) -> None:
    result = llamita(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in output(result)


def test_rank_in_messages(project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "ACTIVITY", processes.Activity(phase="loading"))
    assert "rank 1 (loading): error: nothing.yaml: no such file" in output(llamita("run", "nothing.yaml"))


def test_report_from_the_finished_stages(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stages.REGISTRY, "report", stages.REGISTRY["maker"])
    result = llamita("report", "runs/tiny")
    assert result.exit_code == 1
    assert "no finished stage in it" in output(result)
    llamita("run", "pipeline.yaml", "--until", "base")
    shutil.copytree("runs/tiny/base", "runs/tiny/base.old")  # a backup
    for _ in range(2):  # written again each time
        assert llamita("report", "runs/tiny").exit_code == 0
    assert fake.ran == ["base", "report", "report"]
    assert artifact.read_manifest(Path("runs/tiny/report"))["inputs"].keys() == {"base"}
    llamita("run", "pipeline.yaml", "--until", "base", "name=other")
    result = llamita("report", "runs")
    assert result.exit_code == 1
    assert "expected one of runs/other, runs/tiny" in output(result)
    assert not Path("runs/report").exists()


def test_report_takes_the_stages_of_rounds(
    project: Path, fake: FakeStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stages.REGISTRY, "report", stages.REGISTRY["gather"])
    (project / "pipeline.yaml").write_text(BLOCK)
    (project / "polite.yaml").write_text("{}")
    assert llamita("run", "pipeline.yaml").exit_code == 0
    for name in ("v1/tune.old", "v1.old/tune", "base/inner"):  # backups, and what a stage keeps in its own
        shutil.copytree("runs/tiny/v2/tune", f"runs/tiny/{name}")
    Path("runs/tiny/v2/tune").rename("runs/tiny/v2/tune.partial")
    assert llamita("report", "runs/tiny").exit_code == 0
    inputs = artifact.read_manifest(Path("runs/tiny/report"))["inputs"]
    assert {name: given["path"] for name, given in inputs.items()} == {
        name: f"runs/tiny/{name}" for name in ("base", "v1/tune")
    }


def test_a_block_of_rounds_in_every_command(project: Path, fake: FakeStages) -> None:
    (project / "pipeline.yaml").write_text(BLOCK)
    (project / "polite.yaml").write_text("strength: 3\n")  # no kind in its name: the pipeline has it
    result = llamita("validate", "pipeline.yaml", "polite.yaml")
    assert result.stdout == "pipeline.yaml: ok\npolite.yaml: ok\n", output(result)
    result = llamita("run", "pipeline.yaml", "--dry-run", "--until", "v1/tune", "v1/tune.strength=4")
    assert "v1/tune: first run, after base" in result.stdout
    assert "    strength: 4\n" in result.stdout
    assert fake.ran == []
    assert llamita("run", "pipeline.yaml", "--until", "v1/tune").exit_code == 0
    result = llamita("run", "pipeline.yaml", "--from", "v2/tune")
    assert result.stdout.splitlines()[0] == "[1/1] v2/tune: running (first run)", output(result)
    assert fake.ran == ["base", "v1/tune", "v2/tune"]


@pytest.mark.parametrize(
    "arguments", [["rlhf", "rlhf.yaml", "inputs.sft=x", "--processes", "2"], ["validate", "rlhf.yaml"]]
)
def test_the_former_stage_rlhf_is_refused_with_its_replacement(project: Path, arguments: list[str]) -> None:
    (project / "rlhf.yaml").write_text("seed: 1\n")
    result = llamita(*arguments)
    assert result.exit_code == 2
    assert "stage 'rlhf' was removed" in result.stderr
    assert "      - name: rejection\n        stage: rejection\n" in result.stderr
    assert "rlhf" not in llamita("--help").stdout


def test_chat_receives_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []
    chat = types.ModuleType("llamita.chat")
    chat.__dict__["run"] = lambda model, **options: calls.append((model, options))
    monkeypatch.setitem(sys.modules, "llamita.chat", chat)
    assert llamita("chat", "models/m", "--temperature", "0", "--system", "be brief").exit_code == 0
    options = {"system": "be brief", "temperature": 0.0, "max_new_tokens": 256, "seed": 0}
    assert calls == [(Path("models/m"), options)]


def _llamita_process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`llamita` as a process, with a stage `world` that begins and then sleeps."""
    code = (
        "import sys, time, types\n"
        "from llamita import cli\nfrom llamita.runner import stages\n"
        "from llamita.settings import StageSettings\n"
        "settings, stage = types.ModuleType('slow.settings'), types.ModuleType('slow.stage')\n"
        "settings.WorldSettings = StageSettings\n"
        "stage.run = lambda settings, inputs, out: (out / 'begun').touch() or time.sleep(60)\n"
        "sys.modules |= {'slow': types.ModuleType('slow'), 'slow.settings': settings, 'slow.stage': stage}\n"
        "stages.REGISTRY['world'] = ('slow', 'WorldSettings')\n"
        "cli.main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)]
)
def test_signals(tmp_path: Path, number: signal.Signals, code: int) -> None:
    (tmp_path / "world.yaml").write_text("seed: 1\n")
    process = _llamita_process(tmp_path, "world", "world.yaml", "output=out")
    wait_until(lambda: (tmp_path / "out.partial" / "begun").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert ("run the same command to resume" in stderr) is (number == signal.SIGINT)
    assert not (tmp_path / "out").exists()


def test_debug_is_accepted_anywhere(tmp_path: Path) -> None:
    process = _llamita_process(tmp_path, "world", "nothing.yaml", "--debug")
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "Traceback" in stderr
    assert "nothing.yaml: no such file" in stderr
