"""TODO package engine/models."""
