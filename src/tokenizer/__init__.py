"""Stage: trains a BPE tokenizer with Llama's special tokens and chat template."""
