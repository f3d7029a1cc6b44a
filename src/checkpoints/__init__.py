"""Checkpoints from which a killed or interrupted training resumes."""
