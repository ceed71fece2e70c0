"""TODO package engine/analysis."""
