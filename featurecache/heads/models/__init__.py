"""The built-in heads, one module each."""
