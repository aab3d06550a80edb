"""What is wrong with a data set, found from a cache and its films before a score is believed."""
