"""Stage: the helpfulness and safety reward models (paper, section 3.2.2)."""
