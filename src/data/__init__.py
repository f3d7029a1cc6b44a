"""Reads rows from files: sources, formats, and the treatment of bad rows."""
