"""Stages that sample from servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llamita.artifact import RESUME
from llamita.config import load_settings
from llamita.errors import ConfigError, LlamitaError
from llamita.evaluation import stage as evaluation
from llamita.evaluation.settings import EvaluateSettings
from llamita.gatt import stage as gatt
from llamita.gatt.settings import GattSettings
from llamita.jsonl import read_rows
from llamita.model.checkpoint import load_causal_lm
from llamita.rlhf.ppo import stage as ppo_stage
from llamita.rlhf.ppo.settings import PpoSettings
from llamita.rlhf.rejection import stage as rejection_stage
from llamita.sampling.engines import Samplers

from ...helpers.fake_vllm import FakeVllm, fake_vllm
from ...helpers.lora import LORA, tune
from ...helpers.material import write_data
from ...helpers.repository import zero_file
from ...helpers.rlhf import inputs_of, make_inputs, ppo, rejection
from ...helpers.tiny import save_tiny_model
from ...helpers.two_ranks import on_two_deepspeed_ranks

pytestmark = pytest.mark.usefixtures("without_wandb")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer)


@pytest.fixture
def server(inputs: dict[str, Path]) -> Any:
    with fake_vllm(inputs["start"] / "model") as running:
        yield running


def engine(*servers: FakeVllm) -> dict[str, Any]:
    return {"engine": "vllm", "urls": [server.url for server in servers], "timeout": 60.0}


def reloads(server: FakeVllm) -> list[str]:
    """Names of the folders that a server was told to load."""
    return [
        Path(body["kwargs"]["weights_path"]).name
        for route, body in server.requests
        if route == "/collective_rpc"
    ]


def test_ppo_trains_what_servers_sample(server: FakeVllm, inputs: dict[str, Path], tmp_path: Path) -> None:
    settings = ppo(sampler=engine(server), iterations=3, held_out=2, eval_iterations=1)
    metrics = ppo_stage.run(settings, inputs_of("ppo", inputs), tmp_path)
    assert reloads(server) == ["model", "version-0", "version-1", "version-2"], "the first one warms up"
    rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if "ppo/reward" in row]
    assert len(rows) == 3
    for row in rows:
        assert row["ppo/sampler_deviation"] < 1e-5, "the server has the weights of this iteration"
    assert rows[1]["ppo/first_ratio_deviation"] < 1e-4
    assert metrics["last"]["step"] == 3
    assert not (tmp_path / RESUME / "servers" / "weights").exists()


def test_ppo_notices_weights_one_iteration_old(
    server: FakeVllm, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the canary of the sampler does not: by the trainer's log-probabilities, in fp32."""
    monkeypatch.setattr("llamita.sampling.vllm.sampler.is_unchanged", lambda *_: False)
    server.faults.keep_weights = True
    settings = ppo(sampler=engine(server), iterations=3, critic_warmup_iterations=0)
    with pytest.raises(LlamitaError, match=r"log-probabilities .* differ .*0\.005 are allowed in float32"):
        ppo_stage.run(settings, inputs_of("ppo", inputs), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("stage", [2, 3])
def test_ppo_on_two_ranks(server: FakeVllm, inputs: dict[str, Path], tmp_path: Path, stage: int) -> None:
    settings = ppo(sampler=engine(server), deepspeed=zero_file(stage))
    out = tmp_path / "out"
    out.mkdir()
    on_two_deepspeed_ranks(
        lambda: ppo_stage.run(settings, inputs_of("ppo", inputs), out)["prompts"], tmp_path
    )
    rows = read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["ppo/sampler_deviation"] < 1e-5 for row in rows)
    assert reloads(server) == ["model", "version-0"]


def test_rejection_selects_from_answers_of_servers(
    server: FakeVllm, inputs: dict[str, Path], tmp_path: Path
) -> None:
    settings = rejection(sampler=engine(server))
    rejection_stage.run(settings, inputs_of("rejection", inputs), tmp_path)
    samples = read_rows(tmp_path / "samples.jsonl")
    assert len(samples) == 3 * 4
    bodies = [body for route, body in server.requests if route == "/v1/completions" and body["n"] == 4]
    assert len(bodies) == 3, "one request per prompt"


def test_gatt_on_servers(server: FakeVllm, inputs: dict[str, Path], tmp_path: Path) -> None:
    chosen = {
        "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
        "instructions": ["no_commas"],
        "dialogues": 6,
        "max_turns": 2,
        "max_new_tokens": 8,
        "sampler": engine(server),
    }
    settings = GattSettings.model_validate_json(json.dumps(chosen))
    with pytest.raises(LlamitaError, match="none of 6 dialogues followed"):  # random weights don't
        gatt.run(settings, {"model": inputs["model"], "data": inputs["data"]}, tmp_path)
    assert [body["n"] for route, body in server.requests if body.get("max_tokens") == 8] == [4] * 6


def test_evaluate_loads_each_version(server: FakeVllm, inputs: dict[str, Path], tmp_path: Path) -> None:
    chosen = {
        "gold": False,
        "prompts": {"ordinary": [{"path": "prompts.jsonl", "format": "prompts"}]},
        "max_new_tokens": 12,
        "sampler": engine(server),
    }
    settings = EvaluateSettings.model_validate_json(json.dumps(chosen))
    folders = {"data": inputs["data"], "sft": inputs["model"], "versions.v2": inputs["base"]}
    evaluation.run(settings, folders, tmp_path)
    assert reloads(server) == ["model", "model"]
    answers = [read_rows(tmp_path / "versions" / name / "answers.jsonl") for name in ("sft", "v2")]
    assert answers[0] != answers[1]


def test_an_adapter_is_merged_for_servers(tmp_path: Path, tokenizer: Any) -> None:
    write_data(tmp_path / "data")
    base = save_tiny_model(tmp_path / "base", tokenizer, spread=0.05)
    tune(tmp_path, "sft", 3, LORA | {"merge": False})
    settings = ppo(sampler={"engine": "builtin"})
    with Samplers(settings, dtype="float32", working=tmp_path) as samplers:
        expected = samplers.of(tmp_path / "sft").sample([[1, 5, 6]], 8, temperature=0)
    with fake_vllm(base) as running:
        settings = ppo(sampler=engine(running))
        with Samplers(settings, dtype="float32", working=tmp_path) as samplers:
            found = samplers.of(tmp_path / "sft").sample([[1, 5, 6]], 8, temperature=0)
            versions = []
            sampler, model = samplers.of(tmp_path / "sft"), load_causal_lm(tmp_path / "sft")
            for version in range(3):  # each is written with the config and tokenizer of the start
                with torch.no_grad():
                    model.lm_head.weight.add_(torch.randn_like(model.lm_head.weight), alpha=0.1)
                sampler.sync(model, version)
                versions.append(sampler.sample([[1, 5, 6]], 8, temperature=0).version)
    assert versions == [0, 1, 2]
    assert found.answer_ids == expected.answer_ids
    assert found.logprobs[0] == pytest.approx(expected.logprobs[0], abs=1e-5)


def test_the_engine_is_part_of_the_identity_and_where_it_runs_is_not() -> None:
    def identity(**sampler: Any) -> dict[str, Any]:
        settings = ppo(sampler=sampler) if sampler else ppo()
        return PpoSettings.decisive(settings.fingerprinted())

    here = identity(engine="vllm", urls=["http://a:1"])
    assert identity(engine="vllm", urls=["http://b:2/v1"], timeout=3.0, parallel=7) == here
    assert identity(engine="vllm", start={"python": "/python", "gpus": [3]}) == here
    assert identity(engine="builtin") == identity() != here != identity(engine="generate") != identity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{engine: vlm}", r"sampler.engine: expected 'builtin', .*found \"vlm\" .*did you mean 'vllm'"),
        ("{engine: vllm}", "engine vllm needs either `urls`, of running servers, or `start`"),
        ("{engine: vllm, urls: ['node:1'], start: {python: p}}", "'node:1' is no address"),
        ("{engine: vllm, urls: ['http://a', 'http://a']}", "an address occurs twice"),
        ("{engine: vllm, start: {python: p, count: 2, gpus: [1]}}", "gpus: 1 ids; expected 2"),
        ("{engine: vllm, start: {python: p, host: 0.0.0.0}}", "host: '0.0.0.0' is no address"),
        ("{engine: builtin, urls: ['http://a']}", "sampler.urls: unknown key"),
    ],
)
def test_settings_that_do_not_fit(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_settings(written(tmp_path, text), PpoSettings)


def test_ppo_has_no_top_p(tmp_path: Path) -> None:
    """Log-probabilities of the nucleus are not those of the policy."""
    path = written(tmp_path, "{engine: builtin}")
    path.write_text(path.read_text() + "top_p: 0.9\n")
    with pytest.raises(ConfigError, match="top_p: "):
        load_settings(path, PpoSettings)


def test_paths_are_relative_to_the_yaml_and_links_stay(tmp_path: Path) -> None:
    """The Python of a virtual environment is a link out of it."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to("/usr/bin/env")
    path = written(tmp_path, "{engine: vllm, weights: w, start: {python: env/bin/python}}")
    settings = load_settings(path, PpoSettings).sampler
    assert settings.start.python == str(tmp_path / "env" / "bin" / "python")
    assert settings.weights == str(tmp_path / "w")


def written(folder: Path, sampler: str) -> Path:
    path = folder / "ppo.yaml"
    path.write_text(
        "prompts: [{path: p, format: prompts}]\nmax_new_tokens: 4\niterations: 1\nepisodes: 2\n"
        f"mini_batch_size: 2\nsampler: {sampler}\n"
    )
    return path
