"""Stages `rejection` and `ppo`: what a round of RLHF is made of (paper, section 3.2.3)."""
