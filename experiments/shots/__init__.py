"""Training data, training and comparison of the network that finds shot boundaries."""
