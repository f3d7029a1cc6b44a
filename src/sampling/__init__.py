"""Prompts in, answers with their log-probabilities out."""
