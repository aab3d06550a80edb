"""Heads by what they need."""

from featurecache.heads.registry import HEADS

SEED_HEADS = ("baseline", "concat", "weighted_sum")
"""Those of the article: trained by gradient, with text that is the same for every image."""
ALIGNED_HEADS = tuple(name for name, spec in HEADS.items() if spec.text == "aligned")
"""Those that compare images with texts."""
EPOCH_HEADS = tuple(name for name, spec in HEADS.items() if spec.has_epochs)
"""Those trained by gradient."""
