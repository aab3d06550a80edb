"""Frozen encoders: images and texts to embeddings, behind one interface."""
