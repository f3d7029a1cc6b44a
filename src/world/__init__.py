"""Stage: the miniature world, data that is small and ours, with a known truth."""
