"""The miniature world: its language and ground truth, generators of its texts, and gold scorers."""
