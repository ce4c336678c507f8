"""What recognition by embeddings is worth: motions never trained on, and the time of a search."""
