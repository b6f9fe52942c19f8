"""Train a network from preprocessed arrays and a plan."""
