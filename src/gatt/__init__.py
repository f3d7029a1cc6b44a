"""Ghost Attention (paper, section 3.3)."""
