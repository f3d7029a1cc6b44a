"""The sections of the page: what each shows, its figures and their captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import figures, ghost_attention, rlhf_figures, version_figures

Report = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the page, the sentence that explains it, and what is said where it cannot be drawn."""

    draw: Callable[[Report], str | None]
    caption: str
    missing: str


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    text: str
    figures: tuple[Figure, ...]


SECTIONS = (
    Section(
        "versions",
        "What each version is worth",
        "SFT is the model before any reward model saw it; the later versions, oldest first, were trained "
        "with the reward models, by fine-tuning on the best of several sampled answers or with PPO. All of "
        "them answer the same test prompts with the same draws: the second table compares them prompt by "
        "prompt, with the error of the mean difference.",
        (
            Figure(
                version_figures.versions,
                "Gold helpfulness (0 to 1, from the world's own truth), answers to harmful requests and "
                "refusals of harmless prompts by version, with standard errors: alignment should raise the "
                "first and turn harmful answers into refusals without raising the third (sections 3.4 and "
                "4.4). Refusals of real text are known by their phrases.",
                "Versions not compared: the run has no evaluation.",
            ),
            Figure(
                version_figures.reward_by_round,
                "Mean score of each version's answers under both reward models, after the sigmoid; where the "
                "helpfulness score rises and gold does not, the model has learned to please its judge "
                "(section 3.4.1, figure 11).",
                "Reward by round not drawn: the evaluation had no reward models.",
            ),
        ),
    ),
    Section(
        "reward",
        "Reward models",
        "Each was trained on pairs of answers with the annotators' rating of how much better the preferred "
        "one is, and is tested on pairs held out from training.",
        (
            Figure(
                figures.reward_accuracy,
                "Share of held-out pairs ranked as the (noisy) annotator did: by rating, where clear "
                "preferences are easy and negligible ones near chance (section 3.2.2, table 8), and by which "
                "answer was chosen, the longer or the shorter one: a model that likes long answers is right "
                "in the first and wrong in the second. In percent, with standard errors.",
                "Reward accuracy not drawn: the run has no reward model.",
            ),
        ),
    ),
    Section(
        "rejection",
        "Rejection sampling",
        "Several answers are sampled to each prompt, and the model is fine-tuned on those that score best.",
        (
            Figure(
                rlhf_figures.rejection_scores,
                "Mean score of all sampled answers and of the selected ones, by stage: both should rise, and "
                "the distance between them is what selecting can gain (section 3.2.3, figure 7).",
                "Rejection sampling not drawn: the run has none.",
            ),
        ),
    ),
    Section(
        "ppo",
        "PPO",
        "The policy is trained against the reward models, held near its start by a KL penalty.",
        (
            Figure(
                rlhf_figures.ppo_progress,
                "Reward-model scores of the answers sampled in each iteration (safety counts for harmful "
                "prompts and unsafe answers, helpfulness elsewhere), and their distance from the model that "
                "PPO started from, in nats an answer (section 3.2.3).",
                "PPO not drawn: the run has no PPO iterations.",
            ),
        ),
    ),
    Section(
        "retention",
        "Ghost Attention",
        "An instruction is given once, in the system message of a dialogue's first turn, and the model then "
        "answers all turns on its own.",
        (
            Figure(
                ghost_attention.gatt_retention,
                "Share of dialogues whose answer at a turn still keeps the instruction (solid), or that know "
                "it when asked outright (dotted), with standard errors (section 3.3, table 30).",
                "Retention not drawn: the evaluation has no dialogues with instructions.",
            ),
            Figure(
                ghost_attention.gatt_attention,
                "The strongest attention that any head of any layer pays from one part of a dialogue to "
                "another, its beginning at the top and on the left, its instruction marked in orange; and "
                "that of the answers' tokens to the instruction by turn, with standard errors. Both models "
                "read the same dialogues (section 3.3, figure 10).",
                "Attention not drawn: the evaluation has no dialogues with instructions.",
            ),
        ),
    ),
    Section(
        "training",
        "Training",
        "The loss of each trained stage, and the time that every stage took.",
        (
            Figure(
                figures.loss_curves,
                "Loss by optimizer step; pretraining is next-token prediction (section 2), SFT counts the "
                "answers' tokens only (section 3.1), as does rejection sampling; the reward loss is the "
                "ranking loss with a margin by rating (section 3.2.2).",
                "Losses not drawn: no trained stage left its metrics.",
            ),
            Figure(figures.wall_time, "Wall time of each stage.", "No stage has finished yet."),
        ),
    ),
)
