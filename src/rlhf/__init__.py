"""The stages `rejection` and `ppo`, which make up a round of RLHF (paper, section 3.2.3)."""
