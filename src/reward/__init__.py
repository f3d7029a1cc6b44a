"""Stage: trains a helpfulness, safety or general reward model (paper, section 3.2.2)."""
