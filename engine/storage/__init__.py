"""TODO package engine/storage."""
