"""Scores: metrics, their intervals, thresholds, and zero-shot scores. Arrays in, numbers out."""
