"""The heads: one module per head."""
