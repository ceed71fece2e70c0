"""TODO package engine/generation."""
