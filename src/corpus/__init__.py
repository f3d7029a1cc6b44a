"""The text of pretraining as shards of token ids."""
