"""Several finished runs side by side, from their `report.json` alone."""
