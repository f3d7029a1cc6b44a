"""`llamita compare`: compares two models, or files of their answers, on the same prompts (section 3.4)."""
