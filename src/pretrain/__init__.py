"""Stage: text to token shards to a base model (paper, section 2)."""
