"""Llama sizes, reward heads, checkpoints in and out (Hugging Face layout)."""
