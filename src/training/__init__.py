"""What all training stages share: arguments, trainers, order of the rows, resuming, logging, PPO's engine."""
