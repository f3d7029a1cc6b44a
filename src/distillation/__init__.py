"""Stage: context distillation for safety (paper, section 4.2.4)."""
