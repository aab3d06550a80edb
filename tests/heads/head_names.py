"""Groups of heads."""

from featurecache.heads.registry import HEADS

SEED_HEADS = ("baseline", "concat", "weighted_sum")
"""The heads of "squeezing every drop out of CLIP features"."""
ALIGNED_HEADS = tuple(name for name, spec in HEADS.items() if spec.text == "aligned")
"""Heads that compare images with texts."""
EPOCH_HEADS = tuple(name for name, spec in HEADS.items() if spec.has_epochs)
"""Heads that are trained in epochs."""
VECTOR_HEADS = tuple(name for name, spec in HEADS.items() if not spec.takes_tokens)
"""Heads that take one vector for each image."""
