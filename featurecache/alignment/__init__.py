"""Alignments: maps between the embedding spaces of two encoders that were trained separately."""
