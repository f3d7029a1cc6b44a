"""The report as one self-contained HTML page: figures inlined, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ruamel.yaml import YAML

from ..console import duration
from .measured import asked_turns, measured_versions
from .notes import notes
from .page_tables import share_of, tables
from .sections import SECTIONS, Section
from .style import PALETTE
from .words import verdict, words

Report = dict[str, Any]


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
        sample_versions=_last_of_rounds(_answered(report)),
        verdict=verdict,
    )


def _answered(report: Report) -> list[str]:
    return list(report["samples"][0]["answers"]) if report["samples"] else []


def _last_of_rounds(names: list[str]) -> list[str]:
    """Each round's last version (`v2/ppo` of `v2/rejection` and `v2/ppo`), so that columns stay wide."""
    return list({name.partition("/")[0]: name for name in names}.values())


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
            tiles.append(_tile(label, first.get(key), last[key], percent=percent, detail=detail))
    with_gatt, without = (report["gatt_retention"][name] for name in ("with", "without"))
    asked = [turn for turn in asked_turns(report) if with_gatt.get(turn) is not None]
    if asked:
        turn = asked[-1]
        reached = share_of(report["gatt_dialogues"]["with"] or {}, turn)
        detail = f"at turn {turn}{reached}, without → with GAtt"
        tiles.append(
            _tile("instruction kept", without.get(turn), with_gatt[turn], percent=True, detail=detail)
        )
    if report["wall_seconds"]:
        total = duration(sum(report["wall_seconds"].values()))
        tiles.append({"label": "wall time", "before": "", "value": total, "detail": "all stages together"})
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
