"""Run folders: one schema, one loader, one writer."""
