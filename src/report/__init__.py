"""Reads the artifacts of a run and draws them: `report.json`, one self-contained `report.html`, a terminal table."""
