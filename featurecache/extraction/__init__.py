"""Stage 1: what is still to do, and decode, encode and write as one overlapped pipeline."""
