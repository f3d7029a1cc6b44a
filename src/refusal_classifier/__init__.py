"""Stage: a classifier that recognises refusals, trained on labelled answers (paper, section 4.4)."""
