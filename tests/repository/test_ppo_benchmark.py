"""`benchmarks/ppo.py`: equal work for both sides, ratios of each round, and reports of failures."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..helpers.repository import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def iteration(seconds: float, **phases: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "processor_seconds": seconds / 2,
        "tokens": 32,
        "memory_gb": seconds / 10,
        "phases": {"sampling": 1.0, "scoring": 1.0, "advantages": 1.0, "update": 1.0} | phases,
    }


RESULTS = {
    "tiny": {
        "TRL": [iteration(6.0), iteration(8.0), iteration(20.0)],
        "ours": [iteration(3.0, update=5.0), iteration(2.0, update=5.0), iteration(4.0, update=5.0)],
    }
}


def cells(table: str, side: str) -> list[str]:
    line = next(line for line in table.splitlines() if f"tiny: {side}" in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_those_of_each_round() -> None:
    from ppo import every_round, phases, speeds

    assert cells(speeds(RESULTS), "ours") == [
        "tiny: ours",
        "2.67",  # 8 episodes
        "4.00 (2.00 to 5.00)",
        "4.00 (2.00 to 5.00)",
        "4.0",
        "0.40",
    ]
    assert cells(phases(RESULTS), "ours") == ["tiny: ours", "125", "125", "125", "625", "1000"]
    assert cells(every_round(RESULTS), "TRL")[1] == "6.0 (3.0), 8.0 (4.0), 20.0 (10.0)"


def test_both_sides_must_have_loaded_the_same_models() -> None:
    from ppo import check_agreement

    check_agreement([0.1, 0.2], [0.1, 0.20001])
    with pytest.raises(SystemExit, match="did not load the same models"):
        check_agreement([0.1, 0.2], [0.1, 0.21])


def test_a_side_that_fails_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    from ppo import Worker

    script = "print('RESULT {\"imports_gb\": 1.0}', flush=True); input(); raise MemoryError('too large')"
    worker = Worker([sys.executable, "-c", script], tmp_path / "log")
    assert worker.facts == {"imports_gb": 1.0}
    with pytest.raises(SystemExit, match=r"(?s)exit code 1\n.*MemoryError: too large"):
        worker.iterate()


def test_the_environment_of_trl_is_created_once_and_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ppo

    commands, code = [], 1

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[1:3])
        (tmp_path / "venv").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, code, "", "ERROR: no network")

    monkeypatch.setattr(ppo.subprocess, "run", run)
    (tmp_path / "wanted.txt").write_text("# why\ntrl==0.24.0\ntorch==2.13.0\n")
    with pytest.raises(SystemExit, match=r"(?s)needs trl==0.24.0, torch==2.13.0 .*no network"):
        ppo.trl_python(tmp_path / "venv", tmp_path / "wanted.txt")
    code = 0
    for _ in range(2):
        assert ppo.trl_python(tmp_path / "venv", tmp_path / "wanted.txt").parts[-3:-1] == ("venv", "bin")
    assert commands == [["-m", "venv"], ["-m", "pip"]] * 2


def test_answers_are_as_long_as_the_case_says(tmp_path: Path) -> None:
    import torch
    from ppo_ours import write_material
    from ppo_worker import CASES, PAD, read_prompts

    from llamita.model.checkpoint import load_causal_lm
    from llamita.sampling.llama import LlamaSampler

    case = dataclasses.replace(CASES["tiny"], new_tokens=40, mean_answer=6)
    for name, changed in (("spread", case), ("equal", dataclasses.replace(case, mean_answer=None))):
        write_material(changed, tmp_path / name)
        prompts = read_prompts(tmp_path / name)
        policy = load_causal_lm(tmp_path / name / "policy")
        answers = LlamaSampler(policy).sample(prompts, 40, 4).answer_ids
        lengths = torch.tensor([float(len(answer)) for answer in answers])
        logits = policy(torch.tensor([prompts[0][:3]])).logits
        assert logits.softmax(-1)[..., PAD].max() < 1e-9, "TRL takes a sampled pad for the end"
        if name == "equal":
            assert set(lengths.tolist()) == {40.0}
        else:
            assert 5 < lengths.mean() < 7
            assert lengths.std() > 3


def test_our_side_runs_the_iterations_that_it_is_asked_for(tmp_path: Path) -> None:
    from ppo_ours import write_material
    from ppo_worker import CASES

    write_material(CASES["tiny"], tmp_path)
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "ppo_ours.py"), "tiny", str(tmp_path)],
        input="\n\n",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    ready, *iterations = map(json.loads, lines)
    assert len(ready["agreement"]) == 3
    assert len(iterations) == 2
    for found in iterations:
        assert found["phases"].keys() == {"sampling", "scoring", "advantages", "update"}
        assert sum(found["phases"].values()) == pytest.approx(found["processor_seconds"], rel=0.1)
        assert 8 <= found["tokens"] <= 8 * 8
        assert found["memory_gb"] > 0
