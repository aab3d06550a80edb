"""The fine-tune path: the encoder itself is trained, from images; the cache is never read."""
