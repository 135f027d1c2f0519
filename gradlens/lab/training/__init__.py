"""Training a model while the lens watches."""
