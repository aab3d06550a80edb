"""Two frozen encoders that were never trained together become one image-text space."""
