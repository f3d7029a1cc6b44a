"""The step of a round that runs PPO on top of its rejection-sampled checkpoint (section 3.2.3)."""

from __future__ import annotations

from pathlib import Path

from ..console import is_main_process, track
from ..model.checkpoint import load_causal_lm, load_reward_model, save_model
from ..training.distributed import barrier
from ..training.tracking import Tracker
from .context import Context
from .critic import Critic
from .ppo_trainer import PpoTrainer
from .rounds import Row


def improve(context: Context, start: Path, index: int, tracker: Tracker, out: Path) -> Row:
    """Trains the model in `start` and writes it to `out/model`.

    Returns the metrics of the `first` and the `last` iteration.
    """
    settings, entry = context.settings, context.settings.rounds[index]
    policy = load_causal_lm(start)
    trainer = PpoTrainer(
        policy,
        Critic(load_reward_model(context.reward)),
        context.safety,
        context.helpfulness,
        context.pool,
        settings.ppo,
        settings.max_new_tokens,
        settings.safety_threshold,
        f"{settings.seed}/{entry.name}/ppo",
        settings.sampling_batch_size,
        settings.deepspeed,
    )
    history = []
    for metrics in track(
        trainer.iterations(), f"{entry.name}: PPO", settings.ppo.iterations, unit="iterations"
    ):
        tracker.log({"round": index + 1, **metrics}, int(metrics["iteration"]))
        history.append(metrics)
    if is_main_process():
        save_model(policy, context.tokenizer, out / "model")
    barrier()
    return {"first": history[0], "last": history[-1]}
