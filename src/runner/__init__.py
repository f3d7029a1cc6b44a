"""Runs a pipeline of stages, or one stage."""
