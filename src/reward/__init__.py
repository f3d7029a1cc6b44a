"""Stage: trains a helpfulness or safety reward model (paper, section 3.2.2)."""
