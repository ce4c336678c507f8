"""Shot boundaries: the network, what it is given, and what its answers mean."""
