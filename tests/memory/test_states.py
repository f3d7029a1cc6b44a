"""Weights, gradients and optimizer against what ranks hold under the ZeRO files, and published figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamita.deepspeed_file import DeepSpeedFile
from llamita.memory import host, states
from llamita.memory.engine import Engine
from llamita.memory.shape import Shape
from llamita.memory.states import Trained

from ..helpers.held_bytes import SHAPE as CONFIG
from ..helpers.paper_shapes import PAPER
from ..helpers.rank_processes import on_ranks
from ..helpers.repository import zero_file

GIB, GB = 2**30, 10**9
SHAPE = Shape.from_config(CONFIG | {"model_type": "llama"})


def in_fp32(kind: str, folder: Path) -> str:
    """A ZeRO file without bf16."""
    content = json.loads(Path(zero_file(kind)).read_text())
    content["bf16"]["enabled"] = False
    file = folder / f"zero{kind}_fp32.json"
    file.write_text(json.dumps(content))
    return str(file)


@pytest.mark.long
@pytest.mark.parametrize(
    ("ranks", "kinds"), [(1, ["1", "2", "3"]), (2, ["1", "2", "3", "2_offload", "3_offload"])]
)
def test_ranks_hold_what_is_predicted(ranks: int, kinds: list[str], tmp_path: Path) -> None:
    files = [*map(zero_file, kinds), in_fp32("3", tmp_path)]
    model = Trained.whole(SHAPE)
    assert model.trained > 5_000_000
    cases = [f"whole:{file}" for file in files]
    for rank, found in enumerate(on_ranks("held_bytes.py", ranks, tmp_path, *cases)):
        for file, held in zip(files, found, strict=True):
            engine = Engine.of_file(DeepSpeedFile.read(file).content, SHAPE, ranks, bf16=True)
            waiting = states.waiting_buffers(model, engine)
            expected = {
                "weights": states.weights(model, engine),
                "optimizer": states.optimizer(model, engine),
                "gradients": states.gradients(model, engine) + states.host_buffers(model, engine) + waiting,
                "published": host.published(model, engine, rank),
            }
            assert held == pytest.approx(expected, rel=0.01), (file, rank)


def test_deepspeeds_own_estimates_for_2851m_parameters() -> None:
    """Its documentation: 15.93 GB under ZeRO-2 and 6.09 GB under ZeRO-3 on each of 8 GPUs.

    Both add gradients in bf16: of all weights, though buckets bound them, and of the largest layer (32M
    parameters), whose weights are gathered.
    """
    parameters, layer = 2_851_000_000, 32_000_000
    model = Trained(SHAPE, parameters)
    found = []
    for stage in (2, 3):
        engine = Engine(8, stage, "bf16", persistence=0)
        found.append(
            sum(part(model, engine) for part in (states.weights, states.gradients, states.optimizer))
        )
    assert round((found[0] + 2 * parameters) / GIB, 2) == 15.93
    assert round((found[1] + 4 * layer) / GIB, 2) == 6.09


@pytest.mark.parametrize(("name", "published"), [("7B", 120 * GB), ("70B", 1200 * GB)])
def test_full_training_takes_18_bytes_a_parameter(name: str, published: int) -> None:
    """LLaMA-Factory's README, for all GPUs together."""
    model = Trained.whole(Shape.from_config(PAPER[name]))
    engine = Engine(8, 3, "bf16")
    total = 8 * sum(part(model, engine) for part in (states.weights, states.gradients, states.optimizer))
    assert total == pytest.approx(18 * model.trained, rel=0.01)
    assert total == pytest.approx(published, rel=0.05)


def test_weights_that_zero_3_keeps_gathered_count_on_every_rank() -> None:
    model = Trained.whole(SHAPE)
    norms = (2 * SHAPE.num_hidden_layers + 1) * SHAPE.hidden_size
    for threshold, kept in ((SHAPE.hidden_size, norms), (SHAPE.hidden_size - 1, 0)):
        engine = Engine(4, 3, "bf16", persistence=threshold)
        assert states.weights(model, engine) == -(-2 * model.trained // 4) + 2 * kept


def test_gathered_weights_are_bounded() -> None:
    model = Trained.whole(Shape.from_config(PAPER["70B"]))
    assert states.gathered(model, Engine(8, 3, "bf16", live=10**9)) == 2 * (10**9 + 32_000 * 8192)
    assert states.gathered(model, Engine(8, 3, "bf16", live=10**12)) == 2 * model.trained
    assert states.gathered(model, Engine(8, 2, "bf16")) == 0
