"""TODO package engine/training."""
