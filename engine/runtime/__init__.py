"""TODO package engine/runtime."""
