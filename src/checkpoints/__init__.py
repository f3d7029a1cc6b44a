"""Checkpoints from which killed or interrupted training resumes."""
