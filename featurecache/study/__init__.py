"""A study from one file: what to embed, train and score, and the tables of all results."""
