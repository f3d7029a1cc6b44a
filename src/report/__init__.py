"""Draws a run from its artifacts: `report.json`, a self-contained `report.html`, a terminal table."""
