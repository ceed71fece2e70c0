"""Workarounds for the terminal driver: output, input and clipboard."""
