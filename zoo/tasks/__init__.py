"""What is done with videos of any length: one pass of the decoder, any number of tasks."""
