"""Rows from files: sources, their formats, what becomes of bad ones."""
