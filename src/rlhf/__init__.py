"""Stage: rounds of rejection sampling and PPO (paper, section 3.2.3)."""
