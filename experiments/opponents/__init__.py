"""Other libraries, for comparisons: scripts that run in environments of their own."""
