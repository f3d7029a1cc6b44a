"""Stage: attacks all versions of a model and measures violations (paper, sections 4.3 and 4.4)."""
