"""Stage: proximal policy optimisation against the two reward models (paper, section 3.2.3)."""
