"""Stage: proximal policy optimisation (PPO) against both reward models (paper, section 3.2.3)."""
