"""Sampling: from prompts to answers with their log-probabilities."""
