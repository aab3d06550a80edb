"""Image retrieval by text, label or image, and its quality."""
