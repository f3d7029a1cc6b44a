"""Compares two models: win, tie or loss of each pair of answers, by scores and by a judge (section 3.4)."""
