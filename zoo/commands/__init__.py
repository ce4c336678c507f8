"""What `python -m zoo` does, one module for each group of commands."""
