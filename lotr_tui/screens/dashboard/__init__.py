"""Dashboard of a training."""
