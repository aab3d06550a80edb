"""Predict images that arrive over HTTP, with trained models."""
