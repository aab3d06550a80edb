"""Fine-tuning: train the encoder itself on images; a cache only tells their split."""
