"""Send caches and runs to the Hugging Face hub, and fetch them from there."""
