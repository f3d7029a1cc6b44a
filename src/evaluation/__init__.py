"""How good each version is: gold scores, safety, KL, Ghost Attention retention (sections 3.3, 3.4, 4.4)."""
