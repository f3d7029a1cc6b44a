"""Stage: rejection sampling. Samples K answers per prompt and trains on the best (paper, section 3.2.3)."""
