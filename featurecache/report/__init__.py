"""Runs as one HTML page that opens anywhere, and their plots as PNG files."""
