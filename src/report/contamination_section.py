"""The section of the page on contamination; it is omitted if nothing was measured."""

from __future__ import annotations

from . import contamination_figures
from .section import Figure, Section

CONTAMINATION_SECTION = Section(
    "contamination",
    "Contamination",
    "A token of an evaluation sample is contaminated if it is in a span of more than 10 tokens that the "
    "training text contains, too, with at most four mismatches. A sample is clean below 20% of contaminated "
    "tokens, and dirty from 80% on (section A.6).",
    (
        Figure(
            contamination_figures.overlap,
            "Mean share of contaminated tokens by the minimum number of tokens in a span, with standard "
            "errors. Short spans may be fragments from many documents; a share that stays high with long "
            "spans means that whole samples are in the training text.",
        ),
        Figure(
            contamination_figures.scores,
            "Score of each subset minus that of all samples. Bars are two standard errors of the mean of as "
            "many random samples. Contamination has affected the scores if no bar reaches 0: clean and not "
            "dirty are to its left, not clean and dirty to its right (table 51).",
        ),
    ),
)
