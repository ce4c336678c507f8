"""Training, evaluation and search on top of the zoo."""
