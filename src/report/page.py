"""The report as one self-contained HTML page with inline figures, without scripts or external resources."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ruamel.yaml import YAML

from ..console import duration
from .measured import measured_turns, measured_versions
from .notes import notes
from .page_tables import share_of, tables
from .sections import SECTIONS, Section
from .style import PALETTE
from .words import MEASURE_TITLES, verdict, words

Report = dict[str, Any]


def render(report: Report) -> str:
    """Returns the whole page as HTML, from the report's dictionary alone."""
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
        sample_versions=_last_of_rounds(_sampled_versions(report)),
        verdict=verdict,
    )


def _sampled_versions(report: Report) -> list[str]:
    return list(report["samples"][0]["answers"]) if report["samples"] else []


def _last_of_rounds(names: list[str]) -> list[str]:
    """Keeps the last version of each round (`v2/ppo`, not `v2/rejection`), so that columns stay wide."""
    return list({name.partition("/")[0]: name for name in names}.values())


def _section(section: Section, report: Report) -> dict[str, Any]:
    drawn = [
        {"svg": figure.draw(report), "caption": figure.caption, "missing": figure.missing}
        for figure in section.figures
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
    """Returns the headline figures: value before, value after and what they are measured on."""
    versions = measured_versions(report)
    names, figures = list(versions), list(versions.values())
    first, last = (figures[0], figures[-1]) if figures else ({}, {})
    tiles = []
    for key, percent, detail in (
        ("gold_helpfulness", False, "0 to 1, ordinary prompts"),
        ("violation_rate", True, "harmful prompts"),
        ("false_refusal_rate", True, "ordinary prompts"),
    ):
        if last.get(key) is not None:
            detail = f"{detail}, {words(names[0])} → {words(names[-1])}"
            tiles.append(
                _tile(MEASURE_TITLES[key], first.get(key), last[key], percent=percent, detail=detail)
            )
    with_gatt, without = (report["gatt_retention"][name] for name in ("with", "without"))
    turns = [turn for turn in measured_turns(report) if with_gatt.get(turn) is not None]
    if turns:
        turn = turns[-1]
        reached = share_of(report["gatt_dialogues"]["with"] or {}, turn)
        compared = "with GAtt" if without.get(turn) is None else "without → with GAtt"
        detail = f"at turn {turn}{reached}, {compared}"
        tiles.append(
            _tile("instruction following", without.get(turn), with_gatt[turn], percent=True, detail=detail)
        )
    if report["wall_seconds"]:
        total = duration(sum(report["wall_seconds"].values()))
        tiles.append({"label": "wall time", "before": "", "value": total, "detail": "sum of all stages"})
    return tiles


def _tile(label: str, before: float | None, after: float, *, percent: bool, detail: str) -> dict[str, str]:
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
