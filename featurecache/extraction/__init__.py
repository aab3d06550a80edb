"""Stage 1: encode the images and prompts of a data set into caches."""
