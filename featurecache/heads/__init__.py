"""Heads: classifiers on cached embeddings, their training and their run folders."""
