"""Ranks that work together: the process group, the device, steps of a stage that run once."""
