"""The miniature world's language, its truth, and what is written and judged by it."""
