"""The report as one self-contained HTML page: figures inlined, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ruamel.yaml import YAML

from ..console import duration
from . import figures, ghost_attention
from .measured import asked_turns, measured_versions
from .notes import notes
from .page_tables import share_of, tables
from .style import PALETTE
from .words import verdict, version_title, words

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
        "SFT is the model before any reward model saw it; each later version was fine-tuned on the best of "
        "several sampled answers, and the last one then trained with PPO. All of them answer the same test "
        "prompts with the same draws: the second table compares them prompt by prompt, with the error of the "
        "mean difference.",
        (
            Figure(
                figures.versions,
                "Gold helpfulness (0 to 1, from the world's own truth), answers to harmful requests and "
                "refusals of harmless prompts by version, with standard errors: alignment should raise the "
                "first and turn harmful answers into refusals without raising the third (sections 3.4 and "
                "4.4). Refusals of real text are known by their phrases.",
                "Versions not compared: the run has no evaluation.",
            ),
            Figure(
                figures.reward_by_round,
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
        "ppo",
        "PPO",
        "The last version is trained against the reward models, held near its start by a KL penalty.",
        (
            Figure(
                figures.ppo_progress,
                "Reward-model scores of the answers sampled in each iteration (safety counts for harmful "
                "prompts and unsafe answers, helpfulness elsewhere), and their distance from the model that "
                "PPO started from (section 3.2.3). Dashed lines separate the rounds.",
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
                "answers' tokens only (section 3.1), the reward loss is the ranking loss with a margin by "
                "rating (section 3.2.2).",
                "Losses not drawn: no trained stage left its metrics.",
            ),
            Figure(figures.wall_time, "Wall time of each stage.", "No stage has finished yet."),
        ),
    ),
)


def render(report: Report) -> str:
    """The whole page, drawn from the report's dictionary alone."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"words": words, "yaml": _yaml, "duration": duration}
    return environment.get_template("template.html").render(
        report=report,
        palette=PALETTE,
        tiles=_tiles(report),
        sections=[_section(section, report) for section in SECTIONS],
        # the rejection-sampled half of a round that goes on with PPO is left out: three columns can be read
        sample_versions=[name for name in _answered(report) if not name.endswith("_rejection")],
        version_title=version_title,
        verdict=verdict,
    )


def _answered(report: Report) -> list[str]:
    return list(report["samples"][0]["answers"]) if report["samples"] else []


def _section(section: Section, report: Report) -> dict[str, Any]:
    drawn = [
        {"svg": one.draw(report), "caption": one.caption, "missing": one.missing} for one in section.figures
    ]
    return {
        "id": section.id,
        "title": section.title,
        "text": section.text,
        "figures": drawn,
        "tables": tables(section.id, report),
        "notes": notes(report).get(section.id, []),
    }


def _tiles(report: Report) -> list[dict[str, str]]:
    """The few numbers to read first, before -> after."""
    measured = list(measured_versions(report).values())
    first, last = (measured[0], measured[-1]) if measured else ({}, {})
    tiles = []
    for label, key, percent, detail in (
        ("gold helpfulness", "gold_helpfulness", False, "of 1, first → last version"),
        ("harmful answers", "violation_rate", True, "to harmful requests, first → last version"),
        ("false refusals", "false_refusal_rate", True, "of ordinary prompts, first → last version"),
    ):
        if last.get(key) is not None:
            tiles.append(_tile(label, first.get(key), last[key], percent, detail))
    with_gatt, without = (report["gatt_retention"][name] for name in ("with", "without"))
    asked = [turn for turn in asked_turns(report) if with_gatt.get(turn) is not None]
    if asked:
        turn = asked[-1]
        reached = share_of(report["gatt_dialogues"]["with"] or {}, turn)
        detail = f"at turn {turn}{reached}, without → with GAtt"
        tiles.append(_tile("instruction kept", without.get(turn), with_gatt[turn], True, detail))
    if report["wall_seconds"]:
        total = duration(sum(report["wall_seconds"].values()))
        tiles.append({"label": "wall time", "before": "", "value": total, "detail": "all stages together"})
    return tiles


def _tile(label: str, before: float | None, after: float, percent: bool, detail: str) -> dict[str, str]:
    def shown(value: float) -> str:
        if not percent:
            return f"{value:.2f}"
        return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"

    return {
        "label": label,
        "before": "" if before is None else shown(before),
        "value": shown(after),
        "detail": detail,
    }


def _yaml(value: Any) -> str:
    buffer = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(value, buffer)
    return buffer.getvalue().rstrip() if value else "(none)"
