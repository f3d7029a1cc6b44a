"""Stage: generates the miniature world, a small synthetic data set with known ground truth."""
