"""Report of runs as one self-contained HTML page, and its plots as PNG files."""
