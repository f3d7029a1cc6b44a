"""Preparing a corpus: text of any mix of sources to token shards."""
