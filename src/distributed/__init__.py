"""Ranks that work together: the process group, the device, the DeepSpeed file."""
