"""Stage 2: the heads, their training loop, and the runs they leave behind."""
