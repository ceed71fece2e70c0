"""TODO package engine/runs."""
