"""Stage: searches a training corpus for the tokens of evaluation samples."""
