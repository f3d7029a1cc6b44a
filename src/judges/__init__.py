"""What stages and commands judge answers with: endpoints, reward models, agreement of raters."""
