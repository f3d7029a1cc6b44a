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
from .section import Section
from .sections import SECTIONS
from .style import PALETTE
from .words import MEASURE_TITLES, WORSE, group_title, verdict, words

Report = dict[str, Any]


def render(report: Report) -> str:
    """Returns the whole page as HTML, from the report's dictionary alone."""
    return (
        environment()
        .get_template("template.html")
        .render(
            report=report,
            palette=PALETTE,
            tiles=_tiles(report),
            sections=[found for section in SECTIONS if _has_content(found := _section(section, report))],
            worse=WORSE,
            sample_versions=_last_of_rounds(_sampled_versions(report)),
            verdict=verdict,
        )
    )


def environment() -> Environment:
    """Returns what renders the templates beside this module."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"words": words, "yaml": _yaml, "duration": duration}
    return made


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
        "figures": [figure for figure in drawn if figure["svg"] or figure["missing"]],
        "tables": tables(section.id, report),
        "notes": notes(report).get(section.id, []),
    }


def _has_content(section: dict[str, Any]) -> bool:
    return any(section[part] for part in ("figures", "tables", "notes"))


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
            if key == "violation_rate":
                detail += _worst_context(report, names[-1])
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


def _worst_context(report: Report, version: str) -> str:
    """Returns `; worst context: several turns, 3.0%`, or nothing if contexts were not compared."""
    contexts = report["breakdown"].get(version, {}).get("context", {})
    rates = {
        name: figures["violation_rate"]
        for name, figures in contexts.items()
        if figures.get("violation_rate") is not None
    }
    if len(rates) < 2:
        return ""
    worst = max(rates, key=lambda name: rates[name])
    return f"; worst context: {group_title('context', worst)}, {_percent(rates[worst])}"


def _percent(value: float) -> str:
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def _tile(label: str, before: float | None, after: float, *, percent: bool, detail: str) -> dict[str, str]:
    def shown(value: float) -> str:
        return _percent(value) if percent else f"{value:.2f}"

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
