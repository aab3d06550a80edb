"""Nearest neighbors of a text or an image, and how well retrieval works."""
