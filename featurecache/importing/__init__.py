"""Make caches of embeddings that other programs, or exports of caches, hold."""
