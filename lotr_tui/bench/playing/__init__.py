"""Measurements of text generation and of the memorization index."""
