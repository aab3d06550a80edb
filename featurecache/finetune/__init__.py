"""Fine-tuning: train the encoder itself on images; caches are not used."""
