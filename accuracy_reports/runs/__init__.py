"""Accuracy runs over images, chunk by chunk: journaled, so that a kill loses nothing; here or on many machines."""
