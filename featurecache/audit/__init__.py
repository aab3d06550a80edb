"""Audit of a data set: leaks between splits, shortcuts, and labels with too little support."""
