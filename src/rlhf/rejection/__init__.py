"""Stage: rejection sampling. K answers to a prompt, the best of them trained (paper, section 3.2.3)."""
