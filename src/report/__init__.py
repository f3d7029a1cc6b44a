"""The report on a run: `report.json`, a self-contained `report.html` and tables in the terminal."""
