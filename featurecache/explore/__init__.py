"""Look at a cache and at runs in the browser: a map, neighbors, predictions and the images."""
