"""Files: atomic writes, locks, JSON, CSV, text and fingerprints."""
