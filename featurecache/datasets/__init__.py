"""Data sets: each file turns one folder layout into a Dataset."""
