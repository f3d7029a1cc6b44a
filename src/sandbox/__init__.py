"""Runs programs written by a model, isolated by the kernel; `docs/sandbox.md` says what they can do."""
