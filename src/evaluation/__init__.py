"""Evaluation of all versions: helpfulness, safety, KL and Ghost Attention (sections 3.3, 3.4 and 4.4)."""
