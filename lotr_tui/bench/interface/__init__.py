"""Measurements of the interface, made from outside in a pseudo-terminal."""
