"""Stage: tokenizes the pretraining text of all sources into token shards."""
