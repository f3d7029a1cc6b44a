"""Stage: dialogues for Ghost Attention (paper, section 3.3)."""
