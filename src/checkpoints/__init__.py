"""Checkpoints that a killed or interrupted training goes on from."""
