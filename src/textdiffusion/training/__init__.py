"""Training: one loop for every family of models."""
