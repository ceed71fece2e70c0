"""TODO package engine/data."""
