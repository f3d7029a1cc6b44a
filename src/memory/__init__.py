"""Accounting of memory: the bytes that a stage holds on each GPU, by part (imports no torch)."""
