"""Trained weights: their records, their files and how to load them."""
